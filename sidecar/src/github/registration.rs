use std::time::{Duration, Instant, UNIX_EPOCH};

use http::{Method, StatusCode};
use octocrab::models::actions::SelfHostedRunnerToken;

use super::client::Client;
use super::token_cache::Token;
use super::{Error, runners_path};
use edgerunner_scheduler::model::Target;

pub(super) async fn request(client: Client, target: Target) -> Result<Token, Error> {
    let call = format!("registration token for {target}");
    let path = format!("{}/registration-token", runners_path(&target));
    let asked = Instant::now();
    let answer = client.send(&call, Method::POST, &path, None, &target).await?;
    let reply: SelfHostedRunnerToken = client.read(&call, &answer, StatusCode::CREATED)?;
    let expires = u64::try_from(reply.expires_at.timestamp()).unwrap_or_default();
    let expires = UNIX_EPOCH + Duration::from_secs(expires);
    Ok(Token::new(reply.token.into(), expires, asked, &answer))
}
