//! `edgerunner top`: a view of the whole terminal that shows what needs attention, the pools, and
//! the jobs that wait and run.

mod app;
mod draw;
mod fetch;

use std::{
    io::{self, IsTerminal as _},
    process,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context as _, Result, ensure};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event as Input},
};

use super::{browser, client::Client, terminal::Signals};
use crate::control::clock;
use app::{App, Step};
use fetch::Fetched;

/// What the view reacts to.
enum Event {
    Input(Input),
    Fetched(Box<Fetched>),
    /// A signal, with the exit code that it means.
    End(i32),
}

pub(super) fn run(client: &Client) -> Result<()> {
    ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "top needs a terminal: use `edgerunner status`, or `edgerunner status --watch`"
    );
    let color = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    let signals = Signals::catch()?;
    let (events, received) = mpsc::channel();
    let refresh = fetch::start(client.clone(), events.clone());
    let mut terminal = ratatui::try_init()
        .inspect_err(|_| ratatui::restore())
        .context("cannot use this terminal")?;
    let ends = events.clone();
    thread::spawn(move || ends.send(Event::End(signals.wait())));
    thread::spawn(move || {
        while let Ok(input) = event::read() {
            if events.send(Event::Input(input)).is_err() {
                return;
            }
        }
        // The terminal is gone.
        _ = events.send(Event::End(1));
    });
    let mut app = App::new(client.url(), color);
    let ended = view(&mut terminal, &mut app, &received, &refresh);
    ratatui::restore();
    match ended? {
        0 => Ok(()),
        code => process::exit(code),
    }
}

/// Returns the exit code.
fn view(
    terminal: &mut DefaultTerminal,
    app: &mut App,
    events: &Receiver<Event>,
    refresh: &Sender<()>,
) -> Result<i32> {
    loop {
        terminal.draw(|frame| draw::draw(frame, app, clock::now().wall))?;
        // Everything that has happened meanwhile is drawn at once.
        let first = events.recv().context("nothing is read any more")?;
        for event in [first].into_iter().chain(events.try_iter()) {
            let step = match event {
                Event::Input(input) => app.input(&input),
                Event::Fetched(fetched) => {
                    app.update(*fetched);
                    Step::Stay
                }
                Event::End(code) => return Ok(code),
            };
            match step {
                Step::Stay => {}
                Step::Quit => return Ok(0),
                Step::Refresh => _ = refresh.send(()),
                Step::Open(url) => app.say(match browser::open(&url) {
                    Ok(()) => format!("Opened {url}"),
                    Err(_) => format!("Open {url}"),
                }),
            }
        }
    }
}
