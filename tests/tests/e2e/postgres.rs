//! One sidecar with its store in Postgres.

use anyhow::{Context as _, Result};
use edgerunner_testkit::Postgres;
use edgerunner_tests::{Options, Stack, Webhook, eventually};
use tokio::task::block_in_place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_with_a_store_in_postgres_and_again_after_it_was_away() {
    let server = block_in_place(Postgres::start).unwrap();
    let database = server.database().unwrap();
    let options =
        Options::default().sidecar("STORE_PATH", "").sidecar("STORE_URL", &server.url(&database));
    Stack::run(options, async |stack| -> Result<()> {
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        let completed = "SELECT count(*) FROM edgerunner.jobs WHERE state = 2";
        assert_eq!(server.sql(&database, completed)?, "1");
        // Its record would stay as it is if the server were away.
        runners_are_gone(&server, &database, 1).await?;

        server.stop()?;
        let refused = stack.send(&Webhook::job(7)).await?;
        assert_eq!(refused.status, 503, "{refused:?}");
        server.run()?;
        eventually("deliveries are accepted again", async || {
            let answer = stack.send(&Webhook::job(7)).await?;
            Ok((answer.status == 202).then_some(()))
        })
        .await?;
        let id = stack.queue(0.1);
        stack.completed(id).await?;
        runners_are_gone(&server, &database, 2).await
    })
    .await;
}

async fn runners_are_gone(server: &Postgres, database: &str, count: u32) -> Result<()> {
    let query = "SELECT count(*) FROM edgerunner.runners WHERE gone_ms IS NOT NULL";
    eventually("runners are gone in the store", async || {
        let gone: u32 = server.sql(database, query)?.parse().context("no number")?;
        Ok((gone >= count).then_some(()))
    })
    .await
}
