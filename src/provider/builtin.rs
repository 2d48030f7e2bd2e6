//! The built-in descriptions: TOML like a user's own, compiled in.

#[cfg(test)]
mod tests;

/// A description that is compiled in.
pub(super) struct Kind {
    /// As configuration names it.
    pub(super) name: &'static str,
    /// The description.
    pub(super) text: &'static str,
    /// Where the API is instead, for one that is spoken at several places.
    pub(super) base_url: Option<&'static str>,
}

/// The description of EvoLink.
pub(super) const EVOLINK: &str = include_str!("builtin/evolink.toml");

/// Spoken in China and elsewhere.
const ARK: &str = include_str!("builtin/ark.toml");

const fn kind(name: &'static str, text: &'static str) -> Kind {
    Kind {
        name,
        text,
        base_url: None,
    }
}

/// All of them, by name.
pub(super) const KINDS: [Kind; 16] = [
    kind("ark", ARK),
    kind("dashscope", include_str!("builtin/dashscope.toml")),
    kind("evolink", EVOLINK),
    kind("fal", include_str!("builtin/fal.toml")),
    kind("kie", include_str!("builtin/kie.toml")),
    kind("kling", include_str!("builtin/kling.toml")),
    kind("kling_legacy", include_str!("builtin/kling_legacy.toml")),
    kind("luma", include_str!("builtin/luma.toml")),
    kind("minimax", include_str!("builtin/minimax.toml")),
    kind("minimax_v2", include_str!("builtin/minimax_v2.toml")),
    Kind {
        name: "modelark",
        text: ARK,
        base_url: Some("https://ark.ap-southeast.bytepluses.com"),
    },
    kind("openai", include_str!("builtin/openai.toml")),
    kind("replicate", include_str!("builtin/replicate.toml")),
    kind("runway", include_str!("builtin/runway.toml")),
    kind("veo", include_str!("builtin/veo.toml")),
    kind("wavespeed", include_str!("builtin/wavespeed.toml")),
];
