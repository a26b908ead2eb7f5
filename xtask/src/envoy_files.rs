//! Generates the configurations in `envoy/` from their template.

use anyhow::{Context, Result};
use edgerunner_testkit::workspace;
use minijinja::{Environment, context};

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

pub(crate) fn run() -> Result<()> {
    for file in &FILES {
        let path = workspace::root().join("envoy").join(file.name);
        std::fs::write(&path, file.text()?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", workspace::shown(&path));
    }
    Ok(())
}

impl File {
    fn text(&self) -> Result<String> {
        let path = workspace::root().join("envoy/template").join(TEMPLATE);
        let template = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let mut environment = Environment::new();
        // A line with only a tag leaves no empty line.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_keep_trailing_newline(true);
        let values = context! { tls => self.tls, public => self.public, sidecar => self.sidecar };
        Ok(environment.render_named_str(TEMPLATE, &template, values)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_match_the_template() {
        for file in &FILES {
            let path = workspace::root().join("envoy").join(file.name);
            let text = std::fs::read_to_string(path).unwrap();
            assert!(text == file.text().unwrap(), "{}: run `cargo xtask envoy`", file.name);
        }
    }
}
