//! Devices of the machine that runners may use: paths, CDI names and GPUs.

use serde::Deserialize;

use super::{Container, PoolConfig, ProviderName, document::Document};

const HOST_GPUS: &str = "/docker/host_gpus";
const ALL: &str = "all";
/// Docker's default: read, write, and create the device file.
const ALL_PERMISSIONS: &str = "rwm";

/// The GPUs of each runner of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub(crate) enum Gpus {
    /// All that the machine has, for each runner.
    All,
    /// So many of `docker.host_gpus`, which no other runner has.
    Number(usize),
    /// These, for each runner.
    Ids(Vec<String>),
}

/// As TOML or an environment variable has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(usize),
    Text(String),
    List(Vec<String>),
}

impl TryFrom<Written> for Gpus {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let ids: Vec<String> = match written {
            Written::Number(0) => return Err("at least one"),
            Written::Number(number) => return Ok(Self::Number(number)),
            Written::Text(text) => {
                let ids = text.split(',').map(str::trim).filter(|id| !id.is_empty());
                ids.map(str::to_owned).collect()
            }
            Written::List(ids) => ids,
        };
        match ids.as_slice() {
            [all] if all == ALL => Ok(Self::All),
            ids if ids.is_empty() || !ids.iter().all(|id| is_gpu(id)) => Err("no IDs"),
            _ => Ok(Self::Ids(ids)),
        }
    }
}

impl Gpus {
    /// How many a runner has for itself.
    pub(crate) fn own(&self) -> usize {
        match self {
            Self::Number(number) => *number,
            Self::All | Self::Ids(_) => 0,
        }
    }

    /// In a request to Docker. `own`: those that the runner has for itself.
    pub(crate) fn requested(&self, own: &[String]) -> Vec<String> {
        match self {
            Self::All => vec![ALL.to_owned()],
            Self::Number(_) => own.to_vec(),
            Self::Ids(ids) => ids.clone(),
        }
    }
}

/// A device as Docker's own command line writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Device<'a> {
    Path {
        on_host: &'a str,
        in_container: &'a str,
        /// Of `r`, `w` and `m`.
        permissions: &'a str,
    },
    /// `vendor.com/class=name`, which a specification on the machine describes.
    Cdi(&'a str),
}

impl<'a> Device<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        if is_cdi(text) {
            return Some(Self::Cdi(text));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (on_host, in_container, permissions) = match *parts.as_slice() {
            [path] => (path, path, ALL_PERMISSIONS),
            [path, permissions] if are_permissions(permissions) => (path, path, permissions),
            [on_host, in_container] => (on_host, in_container, ALL_PERMISSIONS),
            [on_host, in_container, permissions] => (on_host, in_container, permissions),
            _ => return None,
        };
        let is_valid = is_path(on_host) && is_path(in_container) && are_permissions(permissions);
        is_valid.then_some(Self::Path { on_host, in_container, permissions })
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() > 1
}

/// Each letter at most once.
fn are_permissions(text: &str) -> bool {
    let of_each = |letter| text.matches(letter).count() <= 1;
    !text.is_empty()
        && text.chars().all(|letter| ALL_PERMISSIONS.contains(letter))
        && ALL_PERMISSIONS.chars().all(of_each)
}

/// Whether it is the qualified name of a device of the Container Device Interface.
pub(crate) fn is_cdi(text: &str) -> bool {
    let part = |text: &str, others: &str| {
        text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.chars().all(|it| it.is_ascii_alphanumeric() || others.contains(it))
    };
    let Some((kind, name)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    part(vendor, "_-.") && part(class, "_-") && part(name, "_-.:")
}

fn is_gpu(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_/:.".contains(c);
    is_cdi(id) || (!id.is_empty() && id != ALL && id.chars().all(allowed))
}

impl Document {
    pub(super) fn check_devices(&mut self, pool: &str, container: &Container) {
        for (index, text) in container.devices.iter().enumerate() {
            if Device::parse(text).is_none() {
                let problem = "write an absolute path such as /dev/kvm, /dev/fuse:rwm or \
                               /dev/ttyUSB0:/dev/modem:rw, or a CDI name such as \
                               vendor.com/class=name";
                self.error(&format!("{pool}/devices/{index}"), problem);
            }
        }
    }

    /// The GPUs of which runners get some for themselves.
    pub(super) fn read_host_gpus(&mut self, pools: &[PoolConfig]) -> Vec<String> {
        let gpus: Vec<String> = self.read(HOST_GPUS);
        for (index, id) in gpus.iter().enumerate() {
            let problem = match id.as_str() {
                id if !is_gpu(id) => {
                    "write the ID, the UUID or the CDI name of one GPU, such as 0 or \
                     nvidia.com/gpu=0"
                }
                id if gpus[..index].iter().any(|other| other == id) => {
                    "this GPU is in the list twice: remove it"
                }
                _ => continue,
            };
            self.error(&format!("{HOST_GPUS}/{index}"), problem);
        }
        let here = |pool: &&PoolConfig| pool.provider == ProviderName::Docker;
        let hands_out = |pool: &PoolConfig| matches!(pool.container.gpus, Some(Gpus::Number(_)));
        let taker = pools.iter().filter(here).find(|pool| hands_out(pool));
        for (index, pool) in pools.iter().enumerate().filter(|(_, pool)| here(pool)) {
            let problem = match (&pool.container.gpus, taker) {
                (Some(Gpus::Number(_)), _) if gpus.is_empty() => {
                    "a number needs the list of the machine's GPUs: write \
                     docker.host_gpus = [\"0\", \"1\"], with what `nvidia-smi -L` prints; or \
                     write \"all\""
                        .to_owned()
                }
                (Some(Gpus::Number(wanted)), _) if *wanted > gpus.len() => {
                    format!("docker.host_gpus lists {}: write at most that", gpus.len())
                }
                (Some(Gpus::Ids(ids)), Some(taker)) => {
                    let Some(id) = ids.iter().find(|id| gpus.contains(id)) else { continue };
                    format!(
                        "GPU {id} is in docker.host_gpus, so a runner of pool {} may have it for \
                         itself: remove it from one of the two lists",
                        taker.name
                    )
                }
                _ => continue,
            };
            self.error(&format!("/pools/{index}/gpus"), problem);
        }
        gpus
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_dockers_command_line_does() {
        let path = |on_host, in_container, permissions| {
            Some(Device::Path { on_host, in_container, permissions })
        };
        for (text, expected) in [
            ("/dev/kvm", path("/dev/kvm", "/dev/kvm", "rwm")),
            ("/dev/fuse:rwm", path("/dev/fuse", "/dev/fuse", "rwm")),
            ("/dev/fuse:r", path("/dev/fuse", "/dev/fuse", "r")),
            ("/dev/a:/dev/b", path("/dev/a", "/dev/b", "rwm")),
            ("/dev/a:/dev/b:wr", path("/dev/a", "/dev/b", "wr")),
            ("vendor.com/class=name", Some(Device::Cdi("vendor.com/class=name"))),
            ("nvidia.com/gpu=0:1", Some(Device::Cdi("nvidia.com/gpu=0:1"))),
            ("kvm", None),
            ("dev/kvm", None),
            ("/", None),
            ("/dev/a:b", None),
            ("/dev/a:rx", None),
            ("/dev/a:rr", None),
            ("/dev/a:/dev/b:", None),
            ("/dev/a:/dev/b:rw:z", None),
            ("vendor.com/class=", None),
            ("vendor.com=name", None),
            ("=name", None),
        ] {
            assert_eq!(Device::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn gpus_are_all_a_number_or_ids() {
        let read = |json: &str| serde_json::from_str::<Gpus>(json).ok();
        let ids = |ids: &[&str]| Some(Gpus::Ids(ids.iter().map(ToString::to_string).collect()));
        assert_eq!(read(r#""all""#), Some(Gpus::All));
        assert_eq!(read(r#"["all"]"#), Some(Gpus::All));
        assert_eq!(read("2"), Some(Gpus::Number(2)));
        assert_eq!(read(r#"["0", "GPU-0f-1"]"#), ids(&["0", "GPU-0f-1"]));
        assert_eq!(read(r#""0, nvidia.com/gpu=1""#), ids(&["0", "nvidia.com/gpu=1"]));
        for wrong in
            ["0", "-1", "1.5", "true", "[]", r#""""#, "[0]", r#"["all", "0"]"#, r#"["a b"]"#]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
