//! A damaged database.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edgerunner_tests::{Options, Stack};

use crate::account::Account;
use crate::figures::Figures;
use crate::load;
use crate::plan::Plan;

const MAX: usize = 4;
const PAGE: usize = 4096;

/// One way to damage a database.
type Damage = fn(&mut Vec<u8>);

const DAMAGES: [(&str, Damage); 4] = [
    ("the header", |bytes| bytes[..16].fill(b'x')),
    ("the first page", |bytes| bytes[100..PAGE].fill(0xff)),
    ("all pages but the first", |bytes| bytes[PAGE..].fill(0xa5)),
    ("half of it is missing", |bytes| bytes.truncate(bytes.len() / 2)),
];

/// The sidecar refuses to start, says what to do, and changes no byte. With the backup
/// restored, it runs again.
pub(crate) async fn run(plan: &Plan) -> Figures {
    let options = Options::default().sidecar("RUNNER_MAX", &MAX.to_string());
    Stack::run(options, async |stack| {
        let mut account = Account::open(MAX);
        let mut random = plan.random();
        for (what, damage) in DAMAGES {
            load::burst(&stack.sandbox, &mut random, plan.pick(2, 20));
            account.check(stack).await?;
            stack.sidecar.terminate().await?;
            account.faults += 1;
            let store = stack.sidecar.store();
            let backup = Files::read(&store)?;
            let mut damaged = backup.database()?.clone();
            damage(&mut damaged);
            std::fs::write(&store, damaged)?;
            // The log has newer copies of many pages, which would hide the damage.
            Files::remove_log(&store)?;
            let before = Files::read(&store)?;
            let output = stack.sidecar.run(&["serve"]).await.context(what)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1), "{what}: {output:?}");
            for word in ["damaged", "nothing was changed", "backup"] {
                ensure!(said.contains(word), "{what}: {said} does not say {word}");
            }
            ensure!(before == Files::read(&store)?, "{what}: the files were changed");
            backup.write()?;
            stack.sidecar.start().await?;
        }
        account.close(stack).await
    })
    .await
}

/// The database and its log.
#[derive(PartialEq)]
struct Files(Vec<(PathBuf, Option<Vec<u8>>)>);

impl Files {
    fn read(store: &Path) -> Result<Self> {
        let read = |path: PathBuf| {
            match path.exists() {
                true => {
                    let bytes = std::fs::read(&path)?;
                    // An empty log counts as none.
                    Ok((path, (!bytes.is_empty()).then_some(bytes)))
                }
                false => Ok((path, None)),
            }
        };
        let paths = [store.to_owned(), Self::log(store)];
        Ok(Self(paths.into_iter().map(read).collect::<Result<_>>()?))
    }

    fn log(store: &Path) -> PathBuf {
        store.with_extension("db-wal")
    }

    fn remove_log(store: &Path) -> Result<()> {
        let log = Self::log(store);
        if log.exists() {
            std::fs::remove_file(log)?;
        }
        Ok(())
    }

    fn database(&self) -> Result<&Vec<u8>> {
        self.0.first().and_then(|(_, bytes)| bytes.as_ref()).context("no database")
    }

    fn write(&self) -> Result<()> {
        for (path, bytes) in &self.0 {
            match bytes {
                Some(bytes) => std::fs::write(path, bytes)?,
                None if path.exists() => std::fs::remove_file(path)?,
                None => {}
            }
        }
        Ok(())
    }
}
