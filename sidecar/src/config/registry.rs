use super::{Registry, document::Document};

impl Document {
    pub(super) fn read_registries(&mut self) -> Vec<Registry> {
        let mut registries: Vec<Registry> = Vec::new();
        for pointer in self.tables("/registries") {
            let registry: Registry = self.read(&pointer);
            let host = format!("{pointer}/host");
            if !is_host(&registry.host) {
                let problem = "write the registry as images name it, such as ghcr.io";
                self.mistake(&host, problem);
            } else if registries.iter().any(|other| other.host == registry.host) {
                self.mistake(&host, "another of [[registries]] has this host: leave one out");
            }
            if registry.username.is_empty() {
                self.mistake(&format!("{pointer}/username"), "write the name to log in with");
            }
            let password = format!("{pointer}/password");
            if registry.password.is_none() && self.get(&format!("{password}_file")).is_none() {
                self.mistake(&password, "there is none: write password or password_file");
            }
            registries.push(registry);
        }
        registries
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c == '/' || c == '@' || c.is_whitespace())
}
