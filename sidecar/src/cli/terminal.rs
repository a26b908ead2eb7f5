//! The terminal, for commands that use its whole screen.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::Result;
use ratatui::crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    style::Print,
    terminal::{
        Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen,
        LeaveAlternateScreen,
    },
};
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

/// The signals that end a command.
pub(super) struct Signals {
    runtime: Runtime,
    /// Ctrl-C.
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is gone.
    hang_up: Signal,
}

impl Signals {
    /// From now on, they do not end the process by themselves.
    pub(super) fn catch() -> Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let context = runtime.enter();
        let [interrupt, terminate, hang_up] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let (interrupt, terminate, hang_up) = (interrupt?, terminate?, hang_up?);
        drop(context);
        Ok(Self { runtime, interrupt, terminate, hang_up })
    }

    /// Waits for one of them. Returns the exit code: 0 for Ctrl-C, which is how such a command ends.
    pub(super) fn wait(self) -> i32 {
        let Self { runtime, mut interrupt, mut terminate, mut hang_up } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 0,
                _ = terminate.recv() => 128 + SignalKind::terminate().as_raw_value(),
                _ = hang_up.recv() => 128 + SignalKind::hangup().as_raw_value(),
            }
        })
    }
}

/// Held while something is drawn, and by the end of the process.
static DRAWING: Mutex<()> = Mutex::new(());

fn drawing() -> MutexGuard<'static, ()> {
    DRAWING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A screen on which text is replaced in place. The terminal is as before once it is dropped, and
/// after Ctrl-C.
pub(super) struct Screen;

impl Screen {
    pub(super) fn open() -> Result<Self> {
        let signals = Signals::catch()?;
        execute!(io::stdout(), EnterAlternateScreen, Hide, DisableLineWrap)?;
        thread::spawn(move || {
            let code = signals.wait();
            let _last = drawing();
            restore();
            std::process::exit(code);
        });
        Ok(Self)
    }

    /// Each line replaces the one that was there, so nothing flickers.
    pub(super) fn draw(&mut self, lines: &[String]) -> Result<()> {
        let _held = drawing();
        let mut frame = Vec::new();
        queue!(frame, MoveTo(0, 0))?;
        for (index, line) in lines.iter().enumerate() {
            let end = if index == 0 { "" } else { "\r\n" };
            queue!(frame, Print(end), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        queue!(frame, Clear(ClearType::FromCursorDown))?;
        let mut stdout = io::stdout().lock();
        io::Write::write_all(&mut stdout, &frame)?;
        Ok(io::Write::flush(&mut stdout)?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _held = drawing();
        restore();
    }
}

/// A terminal that is gone needs nothing.
fn restore() {
    _ = execute!(io::stdout(), EnableLineWrap, Show, LeaveAlternateScreen);
}
