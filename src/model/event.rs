//! Events: what people may want to hear of a task, and how far an endpoint has been told.

use url::Url;

use crate::model::is_config_name;
use crate::model::state_enum;
use crate::model::word_type;

state_enum!(
    /// What happened to a task.
    EventKind,
    "a kind of event",
    {
        /// It became known.
        Learned = "learned",
        /// It completed with results: the clock of its links runs.
        Ready = "ready",
        /// All of its assets are archived; or it completed and has none.
        Archived = "archived",
        /// It failed, was cancelled, vanished or was abandoned; or one of its assets was refused.
        Failed = "failed",
        /// It, or one of its assets, nears its deadline unarchived.
        AtRisk = "at_risk",
        /// One of its assets is lost.
        Lost = "lost",
    }
);

impl EventKind {
    /// Whether the task's own callback is called: those who gave one want to know how it ended.
    pub fn is_an_end(self) -> bool {
        match self {
            EventKind::Archived | EventKind::Failed | EventKind::Lost => true,
            EventKind::Learned | EventKind::Ready | EventKind::AtRisk => false,
        }
    }
}

state_enum!(
    /// Where the delivery of one event to one endpoint stands. All but `Due` are final.
    DeliveryState,
    "a delivery state",
    {
        /// To be sent; its row says when the next try is.
        Due = "due",
        /// The endpoint took it.
        Sent = "sent",
        /// Not sent, and not tried again by itself.
        GivenUp = "given_up",
    }
);

/// What the names of those endpoints begin with that nobody configured: the hosts of callbacks.
const CALLBACK_PREFIX: &str = "callback:";

/// A host name of 253 bytes, a port, and the prefix.
const ENDPOINT_BYTES_MAX: usize = 270;

word_type!(
    /// Whom events are told to: a configured endpoint by its name, or the host that tasks' own callbacks are at.
    EndpointName,
    "an endpoint's name ([a-z][a-z0-9_]*, at most 64 long)",
    |text| is_config_name(text)
        || text.strip_prefix(CALLBACK_PREFIX).is_some_and(|host| {
            !host.is_empty()
                && text.len() <= ENDPOINT_BYTES_MAX
                && host.bytes().all(|byte| byte.is_ascii_graphic())
        })
);

impl EndpointName {
    /// The endpoint that a callback belongs to: its host, so that one that is slow holds up no other. `None` for a URL
    /// without a host.
    pub fn of_callback(url: &Url) -> Option<Self> {
        let port = url.port().map(|port| format!(":{port}"));
        let name = format!(
            "{CALLBACK_PREFIX}{}{}",
            url.host_str()?,
            port.unwrap_or_default()
        );
        name.parse().ok()
    }

    /// Whether these are callbacks at one host.
    pub fn is_callback(&self) -> bool {
        self.as_str().starts_with(CALLBACK_PREFIX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_of_one_host_are_one_endpoint() {
        let of = |url: &str| {
            let name = EndpointName::of_callback(&url.parse().unwrap());
            name.map(|name| name.to_string())
        };
        assert_eq!(
            of("https://app.test/a?key=1").as_deref(),
            Some("callback:app.test")
        );
        assert_eq!(
            of("http://[::1]:8080/b").as_deref(),
            Some("callback:[::1]:8080")
        );
        assert_eq!(of("data:text/plain,x"), None);
        assert!(
            "callback:app.test"
                .parse::<EndpointName>()
                .unwrap()
                .is_callback()
        );
        assert!(!"app".parse::<EndpointName>().unwrap().is_callback());
        for bad in ["", "callback:", "callback:a b", "App", "a:b"] {
            assert!(bad.parse::<EndpointName>().is_err(), "{bad}");
        }
    }
}
