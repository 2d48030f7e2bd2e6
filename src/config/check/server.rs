//! What is wrong with `[server]`: doors that stand open, and addresses that are none.

use std::net::SocketAddr;

use crate::config::check::Check;
use crate::config::node::Path;
use crate::units::ByteSize;
use crate::units::Span;

/// A webhook carries one task's answer, of which a provider's API gives no more than this.
const HOOK_BODY: (ByteSize, ByteSize) = (ByteSize::bytes(1 << 10), ByteSize::mib(16));

/// The system takes 107 bytes, and the socket has the process's number behind its name until it is in place.
const SOCKET_BYTES_MAX: usize = 99;

/// What S3 signs.
const PRESIGNED: (Span, Span) = (Span::from_secs(1), Span::from_secs(7 * 24 * 3600));

impl Check<'_> {
    pub(super) fn server(&mut self) {
        let server = &self.config.server;
        let is_open = |listen: &SocketAddr| !listen.ip().is_loopback();
        let token_failed = self.has_failed(&Path::keys(&["server", "token"]));
        if let Some(listen) = server.listen.filter(is_open)
            && server.token.is_none()
            && !token_failed
        {
            let what = format!("{listen} is open to others, and there is no server.token");
            let note = "set server.token to a secret of 32 random bytes, or listen on 127.0.0.1";
            self.value(&["server", "listen"], what, note);
        }
        if let Some(token) = &server.token {
            self.secret(Path::keys(&["server", "token"]), token);
        }
        if let Some(token) = &server.token_old {
            self.secret(Path::keys(&["server", "token_old"]), token);
        }
        if let Some(url) = &server.public_url {
            self.address(Path::keys(&["server", "public_url"]), url);
        }
        if let Some(listen) = server.hooks.listen
            && listen.port() != 0
            && server.listen == Some(listen)
        {
            let what = format!("{listen} is where server.listen is already");
            let note = "write \"\": webhooks come to the same port then, under /hooks/";
            self.value(&["server", "hooks", "listen"], what, note);
        }
        let presigned = self.config.links.presigned;
        if presigned < PRESIGNED.0 || presigned > PRESIGNED.1 {
            let what = format!("{presigned} is no lifetime of a signed link");
            let note = "write \"1s\" to \"168h\", which is all that S3 allows";
            self.value(&["links", "presigned"], what, note);
        }
        for (name, destination) in &self.config.destination {
            if let Some(url) = &destination.public_url {
                let path = Path::keys(&["destination", name.as_str(), "public_url"]);
                self.address(path, url);
            }
        }
        let socket = &server.socket;
        if !socket.as_os_str().is_empty() && !socket.is_absolute() {
            let what = format!("{} is not an absolute path", socket.display());
            self.value(
                &["server", "socket"],
                what,
                "write the whole path, or \"\" for no socket",
            );
        }
        let length = socket.as_os_str().len();
        if length > SOCKET_BYTES_MAX {
            let what = format!("{length} bytes are too long for a socket's path");
            let note = format!("write one of at most {SOCKET_BYTES_MAX} bytes");
            self.value(&["server", "socket"], what, note);
        }
        let (min, max) = HOOK_BODY;
        if server.hooks.body_max < min || server.hooks.body_max > max {
            let what = format!("{} is no bound for a webhook", server.hooks.body_max);
            let note = format!("write \"{min}\" to \"{max}\"");
            self.value(&["server", "hooks", "body_max"], what, note);
        }
    }
}
