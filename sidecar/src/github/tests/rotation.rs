//! Tokens and keys whose files are replaced.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use super::*;

/// The file of a token, and a GitHub that accepts only these tokens.
struct Rotation {
    directory: tempfile::TempDir,
    accepted: Arc<Mutex<Vec<String>>>,
    server: Server,
}

impl Rotation {
    async fn start() -> Self {
        let accepted = Arc::new(Mutex::new(vec!["ghp_0".to_owned()]));
        let taken = accepted.clone();
        let server = Server::start(move |seen| {
            let bearer = seen.header("authorization")[0];
            let known = taken.lock().unwrap().iter().any(|own| bearer == format!("Bearer {own}"));
            answer(if known { 201 } else { 401 }, &[], if known { JIT_REPLY } else { "" })
        })
        .await;
        let rotation = Self { directory: tempfile::tempdir().unwrap(), accepted, server };
        rotation.write("ghp_0");
        rotation
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("token")
    }

    fn write(&self, token: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, token).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn github(&self) -> GitHub {
        let token = Secret { value: "ghp_0".into(), file: Some(self.file()) };
        let api_url = format!("http://{}", self.server.address);
        let identity = Identity::Token(token);
        GitHub::new(&CredentialConfig { identity, ..credential(&api_url) }, TIMEOUT).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_rotated_under_load_without_a_failure() {
    let rotation = Rotation::start().await;
    let github = rotation.github();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (github, stop) = (github.clone(), stop.clone());
        callers.spawn(async move {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                github.jit_config(&organization(), &new_runner()).await?;
            }
            Ok::<_, Error>(())
        });
    }
    for number in 1..=20 {
        let token = format!("ghp_{number}");
        rotation.accepted.lock().unwrap().push(token.clone());
        rotation.write(&token);
        // Calls with the old one are still running.
        rotation.accepted.lock().unwrap().remove(0);
        let seen = rotation.server.count();
        while rotation.server.count() < seen + 40 && callers.try_join_next().is_none() {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let ends = callers.join_all().await;
    assert_eq!(ends.len(), 8, "one failed");
    ends.into_iter().collect::<Result<(), Error>>().unwrap();
}

#[tokio::test]
async fn a_refused_token_that_is_not_replaced_is_tried_once() {
    let rotation = Rotation::start().await;
    rotation.accepted.lock().unwrap().clear();
    let error = rotation.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    assert_eq!(rotation.server.count(), 1);
}

#[tokio::test]
async fn the_key_of_an_app_may_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.pem");
    let server = github_of_an_app(Duration::from_secs(3_600), |_| false).await;
    let key = Secret { value: PRIVATE_KEY.into(), file: Some(file.clone()) };
    let github = app_with_key(server.address, key);
    let jwt = async || {
        // Sent as the App itself.
        github.deliveries(&WebhookId::App, None).await.unwrap_err();
        let seen = server.seen.lock().unwrap();
        let request = seen.last().unwrap();
        verified_by(OTHER_PRIVATE_KEY, request.header("authorization")[0])
    };
    std::fs::write(&file, PRIVATE_KEY).unwrap();
    assert!(!jwt().await);
    std::fs::write(&file, OTHER_PRIVATE_KEY).unwrap();
    assert!(jwt().await);
    std::fs::write(&file, &OTHER_PRIVATE_KEY[..100]).unwrap();
    assert!(jwt().await, "half of a key leaves the last one");
}

/// Whether this key signed the token.
fn verified_by(key: &str, bearer: &str) -> bool {
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let key = RsaKeyPair::from_der(der.secret_der()).unwrap();
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public());
    key.verify(message.as_bytes(), &signature).is_ok()
}
