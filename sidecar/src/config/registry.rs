//! Logins for container registries.

use super::{Registry, document::Document};

impl Document {
    pub(super) fn read_registries(&mut self) -> Vec<Registry> {
        let mut registries: Vec<Registry> = Vec::new();
        for pointer in self.tables("/registries") {
            let registry: Registry = self.read(&pointer);
            let host = format!("{pointer}/host");
            if !is_host(&registry.host) {
                let problem = "write the host as in image names, such as ghcr.io";
                self.error(&host, problem);
            } else if registries.iter().any(|other| other.host == registry.host) {
                self.error(&host, "another registry has this host: remove one of them");
            }
            if registry.username.is_empty() {
                self.error(&format!("{pointer}/username"), "write the user name to log in with");
            }
            let password = format!("{pointer}/password");
            if registry.password.is_none() && self.get(&format!("{password}_file")).is_none() {
                self.error(&password, "the password is missing: write password or password_file");
            }
            registries.push(registry);
        }
        registries
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == '/' || c == '@' || c.is_whitespace())
}
