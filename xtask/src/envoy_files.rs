//! Generates the configurations in `envoy/` from their templates.

use anyhow::{Context, Result};
use edgerunner_testkit::workspace;
use minijinja::{Environment, Value, context};

struct File {
    name: &'static str,
    tls: bool,
    /// Whether others can reach it: it has limits on memory, connections and requests.
    public: bool,
    /// How Envoy connects to the sidecar.
    sidecar: &'static str,
}

const FILES: [File; 5] = [
    File { name: "envoy.yaml", tls: false, public: false, sidecar: "tcp" },
    File { name: "production.yaml", tls: true, public: true, sidecar: "mtls" },
    File { name: "unix-socket.yaml", tls: true, public: true, sidecar: "unix" },
    File { name: "behind-proxy.yaml", tls: false, public: true, sidecar: "unix" },
    File { name: "private-network.yaml", tls: true, public: true, sidecar: "private" },
];

const TEMPLATE: &str = "envoy.yaml.jinja";

/// The way out of pools with `egress`, by whether it permits what they do not name.
const EGRESS: [(&str, bool); 2] = [("egress.yaml", false), ("egress-observe.yaml", true)];
const EGRESS_TEMPLATE: &str = "egress.yaml.jinja";

/// Sign-in before the page, by how Envoy connects to the sidecar.
const SIGN_IN: [(&str, &str); 2] = [("sign-in.yaml", "unix"), ("sign-in-mtls.yaml", "mtls")];
const SIGN_IN_TEMPLATE: &str = "sign-in.yaml.jinja";

pub(crate) fn run() -> Result<()> {
    for (name, text) in texts()? {
        let path = workspace::root().join("envoy").join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", workspace::shown(&path));
    }
    Ok(())
}

/// All files, by name.
fn texts() -> Result<Vec<(&'static str, String)>> {
    let mut texts = Vec::new();
    for File { name, tls, public, sidecar } in FILES {
        texts.push((name, render(TEMPLATE, context! { tls, public, sidecar })?));
    }
    for (name, observe) in EGRESS {
        texts.push((name, render(EGRESS_TEMPLATE, context! { observe })?));
    }
    for (name, sidecar) in SIGN_IN {
        texts.push((name, render(SIGN_IN_TEMPLATE, context! { sidecar })?));
    }
    Ok(texts)
}

fn render(template: &str, values: Value) -> Result<String> {
    let path = workspace::root().join("envoy/template").join(template);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let mut environment = Environment::new();
    // A line with only a tag leaves no empty line.
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_keep_trailing_newline(true);
    Ok(environment.render_named_str(template, &text, values)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_match_their_templates() {
        for (name, expected) in texts().unwrap() {
            let text = std::fs::read_to_string(workspace::root().join("envoy").join(name)).unwrap();
            assert!(text == expected, "{name}: run `cargo xtask envoy`");
        }
    }
}
