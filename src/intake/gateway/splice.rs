//! The one change to a submission: our callback address put in, the caller's own taken out, all while the body passes.
//!
//! A body may hold whole pictures, so it is not kept. What comes out has a length that is known before the first byte
//! went: ours goes in at the front, and what is taken out becomes spaces, which mean nothing between the tokens of
//! JSON. The upstream is told a `Content-Length`, as the caller would have told it.
//!
//! ```text
//!   {"model":"m","callback_url":"https://caller/","n":1}
//!   {"callback_url":"https://ours/","model":"m"                                ,"n":1}
//! ```
//!
//! What is no JSON, or turns out to be none, passes as it is from there on: the provider says what is wrong with it.

/// A longer name is not the field's, a longer value no address: such a member is not held back until it ends.
const HELD_BYTES_MAX: usize = 16 * 1024;

/// Says of the value of the caller's field, as JSON, whether it is taken out.
pub(super) type Judge = Box<dyn FnMut(&[u8]) -> bool + Send>;

/// A body on its way.
pub(super) struct Splice {
    field: String,
    /// `"field":"address"`, until it has been put in.
    ours: Option<Vec<u8>>,
    growth: usize,
    is_taken_out: Judge,
    state: State,
    /// What has come and is not decided on: from the end of a member to the end of the next one at most.
    held: Vec<u8>,
    /// Where in `held` the comma stands.
    comma: Option<usize>,
    /// Where in `held` the value begins.
    value_at: usize,
    /// Whether a member has come.
    has_come: bool,
    /// Whether a member has gone out, ours included.
    has_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has come but a byte order mark and space.
    Start,
    /// Between the members of the outermost object; a comma and space may be held.
    Between,
    /// Within the name of a member.
    Name(Quoted),
    /// Within the caller's field: held until its value has ended.
    Field(Value),
    /// Within another member: passes.
    Other(Value),
    /// Behind the object, or in what is none: passes.
    Rest,
}

/// Within a string: whether the byte before was a backslash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Quoted {
    is_escaped: bool,
}

/// How far within a member's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Value {
    depth: u64,
    string: Option<Quoted>,
}

impl Splice {
    /// Puts `ours` into `field`, and asks `is_taken_out` of each value that the caller has there.
    pub(super) fn new(field: &str, ours: Option<&str>, is_taken_out: Judge) -> Self {
        let written = |text: &str| serde_json::to_string(text).expect("a text is written as JSON");
        let ours = ours.map(|ours| format!("{}:{}", written(field), written(ours)).into_bytes());
        Self {
            field: field.to_owned(),
            // What comes between ours and the next is one byte.
            growth: ours.as_ref().map_or(0, |ours| ours.len() + 1),
            ours,
            is_taken_out,
            state: State::Start,
            held: Vec::new(),
            comma: None,
            value_at: 0,
            has_come: false,
            has_gone: false,
        }
    }

    /// Whether a body that begins like this is an object; `None` while that does not show.
    pub(super) fn is_object(beginning: &[u8]) -> Option<bool> {
        let first = beginning.iter().find(|byte| !is_before(**byte));
        first.map(|byte| *byte == b'{')
    }

    /// By how many bytes a body that is an object grows.
    pub(super) fn growth(&self) -> usize {
        self.growth
    }

    /// Takes what came and gives what goes on.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.growth + self.held.len() + bytes.len());
        let mut left = bytes;
        while let Some((byte, rest)) = left.split_first() {
            let plain = self.passing(left);
            if plain > 0 {
                let (passing, rest) = left.split_at(plain);
                out.extend_from_slice(passing);
                left = rest;
                continue;
            }
            left = rest;
            match self.state {
                State::Start => self.start(*byte, &mut out),
                State::Between => self.between(*byte, &mut out),
                State::Name(quoted) => self.name(quoted, *byte, &mut out),
                State::Field(value) => self.field(value, *byte, &mut out),
                State::Other(value) => self.other(value, *byte, &mut out),
                State::Rest => out.push(*byte),
            }
        }
        out
    }

    /// How many of the bytes that come next change nothing: nearly all, where a text holds a picture.
    fn passing(&self, bytes: &[u8]) -> usize {
        const PLAIN: Option<Quoted> = Some(Quoted { is_escaped: false });
        match self.state {
            State::Rest => bytes.len(),
            State::Other(Value { string: PLAIN, .. }) => {
                let ends = |byte: &u8| matches!(byte, b'"' | b'\\');
                bytes.iter().position(ends).unwrap_or(bytes.len())
            }
            State::Start | State::Between | State::Name(_) | State::Field(_) | State::Other(_) => 0,
        }
    }

    /// The body has ended: gives what was held.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.state {
            State::Between | State::Name(_) | State::Field(_) => self.give_up(&mut out),
            State::Start | State::Other(_) | State::Rest => {}
        }
        out
    }

    fn start(&mut self, byte: u8, out: &mut Vec<u8>) {
        out.push(byte);
        if byte == b'{' {
            self.state = State::Between;
        } else if !is_before(byte) {
            self.state = State::Rest;
        }
    }

    fn between(&mut self, byte: u8, out: &mut Vec<u8>) {
        let has_room = self.held.len() < HELD_BYTES_MAX;
        let is_next = self.has_come == self.comma.is_some();
        self.held.push(byte);
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' if has_room => self.state = State::Between,
            b',' if self.has_come && self.comma.is_none() => {
                self.comma = Some(self.held.len() - 1);
                self.state = State::Between;
            }
            b'"' if is_next => {
                self.has_come = true;
                self.state = State::Name(Quoted::default());
            }
            // The end of the object, or what should not be here.
            _ => self.give_up(out),
        }
    }

    fn name(&mut self, quoted: Quoted, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        self.state = match quoted.after(byte) {
            Some(quoted) if self.held.len() < HELD_BYTES_MAX => State::Name(quoted),
            // The rest of the name passes like a string within the member.
            Some(quoted) => self.pass(Value::within(quoted), out),
            None if self.is_field() => {
                self.value_at = self.held.len();
                State::Field(Value::default())
            }
            None => self.pass(Value::default(), out),
        };
    }

    fn field(&mut self, value: Value, byte: u8, out: &mut Vec<u8>) {
        match value.after(byte) {
            Some(value) => {
                self.held.push(byte);
                self.state = if self.held.len() < HELD_BYTES_MAX {
                    State::Field(value)
                } else {
                    self.pass(value, out)
                };
            }
            None => {
                let said = self.held.get(self.value_at..).unwrap_or_default();
                let said = said.trim_ascii_start().strip_prefix(b":");
                let said = said.map(<[u8]>::trim_ascii);
                if said.is_some_and(|said| (self.is_taken_out)(said)) {
                    self.blank(out);
                } else {
                    self.keep(out);
                }
                self.between(byte, out);
            }
        }
    }

    fn other(&mut self, value: Value, byte: u8, out: &mut Vec<u8>) {
        match value.after(byte) {
            Some(value) => {
                out.push(byte);
                self.state = State::Other(value);
            }
            None => self.between(byte, out),
        }
    }

    /// Whether the name that is held, behind a comma and space, is the field's.
    fn is_field(&self) -> bool {
        let quote = self.held.iter().position(|byte| *byte == b'"');
        let name = quote.and_then(|at| self.held.get(at..)).unwrap_or_default();
        serde_json::from_slice::<String>(name).is_ok_and(|name| name == self.field)
    }

    fn pass(&mut self, value: Value, out: &mut Vec<u8>) -> State {
        self.keep(out);
        State::Other(value)
    }

    /// Lets the held member out, with a comma before it if one has gone, and none if not.
    fn keep(&mut self, out: &mut Vec<u8>) {
        self.put_in(b',', out);
        if !self.has_gone
            && let Some(comma) = self.comma.and_then(|at| self.held.get_mut(at))
        {
            *comma = b' ';
        }
        self.let_out(out);
        self.has_gone = true;
    }

    /// Lets spaces out in place of the held member.
    fn blank(&mut self, out: &mut Vec<u8>) {
        self.put_in(b' ', out);
        self.held.iter_mut().for_each(|byte| {
            if !byte.is_ascii_whitespace() {
                *byte = b' ';
            }
        });
        self.let_out(out);
    }

    /// Lets out what is held, and whatever comes.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        self.put_in(b' ', out);
        self.let_out(out);
        self.state = State::Rest;
    }

    fn put_in(&mut self, then: u8, out: &mut Vec<u8>) {
        if let Some(ours) = self.ours.take() {
            out.extend(ours);
            out.push(then);
            // The comma behind ours is the one that just went, so the first member brings none of its own.
            self.has_gone = true;
        }
    }

    fn let_out(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
        self.comma = None;
    }
}

impl Quoted {
    /// `None` where the string ends with `byte`.
    fn after(self, byte: u8) -> Option<Self> {
        let is_escape = byte == b'\\' && !self.is_escaped;
        (byte != b'"' || self.is_escaped).then_some(Self {
            is_escaped: is_escape,
        })
    }
}

impl Value {
    fn within(quoted: Quoted) -> Self {
        Self {
            depth: 0,
            string: Some(quoted),
        }
    }

    /// `None` where `byte` stands behind the value.
    fn after(self, byte: u8) -> Option<Self> {
        if let Some(quoted) = self.string {
            return Some(Self {
                string: quoted.after(byte),
                ..self
            });
        }
        let depth = match byte {
            b'"' => {
                return Some(Self {
                    string: Some(Quoted::default()),
                    ..self
                });
            }
            b'{' | b'[' => self.depth.saturating_add(1),
            b'}' | b']' => self.depth.checked_sub(1)?,
            b',' if self.depth == 0 => return None,
            _ => self.depth,
        };
        Some(Self { depth, ..self })
    }
}

fn is_before(byte: u8) -> bool {
    // The byte order mark of UTF-8 is no space, but some write it.
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf)
}

#[cfg(test)]
mod tests;
