//! The version of the Envoy that runs this filter.

use proxy_wasm::hostcalls;

/// Such as `1.40.0`; `None` if this proxy has no such attribute.
pub(super) fn envoy() -> Option<String> {
    let number = |name| {
        let path = vec!["xds", "node", "user_agent_build_version", "version", name];
        let bytes = hostcalls::get_property(path).ok()??;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    Some(format!("{}.{}.{}", number("major_number")?, number("minor_number")?, number("patch")?))
}
