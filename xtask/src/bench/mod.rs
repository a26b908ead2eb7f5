use anyhow::Result;

use crate::stop::Stop;

#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(_stop: &Stop, _args: Args) -> Result<()> {
    Ok(())
}
