//! The browser: opens an address in it, or prints the address where there is none.

use anyhow::{Result, ensure};

use super::output::{print, printable};

/// Opens `url`. Where that is not possible, as on a server, it is printed to be copied.
pub(super) fn open_or_print(url: &str) -> Result<()> {
    match open(url) {
        Ok(()) => print(&printable(format!("Opened {url} in your browser.")))?,
        Err(_) => print(&printable(url.to_owned()))?,
    }
    print("\n")
}

/// Opens `url`, without printing anything.
pub(super) fn open(url: &str) -> Result<()> {
    // The sidecar's answer must not start anything else.
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    ensure!(is_web, "not the address of a web page: {url}");
    Ok(webbrowser::open(url)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_pages_are_opened() {
        for wrong in ["file:///etc/passwd", "javascript:alert(1)", "-h", ""] {
            assert!(open(wrong).is_err(), "{wrong}");
        }
    }
}
