//! The state of the view, and what each key does.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ratatui::{
    crossterm::event::{Event as Input, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    widgets::ListState,
};

use super::fetch::{Data, Fetched};
use crate::{
    api::views::JobHistoryView,
    control::{attention::Finding, clock, snapshot::PoolView},
};
use edgerunner_scheduler::{model::UnixMs, plan::Waiting};

/// Rows that a page has: as many as are usually seen at once.
const PAGE: u16 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    Attention,
    Pools,
    Waiting,
    Running,
}

impl Panel {
    pub(super) const ALL: [Self; 4] = [Self::Attention, Self::Pools, Self::Waiting, Self::Running];

    fn after(self, steps: usize) -> Self {
        Self::ALL[(self as usize + steps) % Self::ALL.len()]
    }
}

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Stay,
    Quit,
    Refresh,
    /// This address, in a browser.
    Open(String),
}

/// What is listed: what was fetched, as far as it passes the filter.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) attention: Vec<Finding>,
    pub(super) pools: Vec<PoolView>,
    pub(super) waiting: Vec<JobHistoryView>,
    pub(super) running: Vec<JobHistoryView>,
}

pub(super) struct App {
    /// Of the sidecar, and of its status page.
    pub(super) url: String,
    pub(super) color: bool,
    /// The last that could be fetched.
    pub(super) data: Option<Data>,
    pub(super) fetched_ms: Option<UnixMs>,
    /// Why nothing newer could be fetched.
    pub(super) problem: Option<String>,
    pub(super) listed: Listed,
    pub(super) focus: Panel,
    pub(super) lists: [ListState; 4],
    pub(super) filter: String,
    pub(super) filter_is_edited: bool,
    pub(super) help: bool,
    /// What the last key did, until the next one.
    pub(super) said: Option<String>,
}

impl App {
    pub(super) fn new(url: &str, color: bool) -> Self {
        Self {
            url: url.to_owned(),
            color,
            data: None,
            fetched_ms: None,
            problem: None,
            listed: Listed::default(),
            focus: Panel::Attention,
            lists: Default::default(),
            filter: String::new(),
            filter_is_edited: false,
            help: false,
            said: None,
        }
    }

    pub(super) fn update(&mut self, fetched: Fetched) {
        match fetched {
            Ok(data) => {
                self.data = Some(data);
                self.fetched_ms = Some(clock::now().wall);
                self.problem = None;
                self.list();
            }
            Err(problem) => self.problem = Some(problem),
        }
    }

    pub(super) fn say(&mut self, text: String) {
        self.said = Some(text);
    }

    pub(super) fn input(&mut self, input: &Input) -> Step {
        match input {
            Input::Key(key) if key.kind != KeyEventKind::Release => self.key(*key),
            // It is drawn again after every event.
            _ => Step::Stay,
        }
    }

    fn key(&mut self, KeyEvent { code, modifiers, .. }: KeyEvent) -> Step {
        self.said = None;
        let control = modifiers.contains(KeyModifiers::CONTROL);
        match code {
            KeyCode::Char('c') if control => return Step::Quit,
            _ if self.filter_is_edited => self.edit_filter(code),
            _ if self.help => self.help = false,
            KeyCode::Char('q') => return Step::Quit,
            KeyCode::Char('r') => return Step::Refresh,
            KeyCode::Char('o') | KeyCode::Enter => {
                return self.address().map_or(Step::Stay, Step::Open);
            }
            KeyCode::Char('?') => self.help = true,
            KeyCode::Char('/') => self.filter_is_edited = true,
            KeyCode::Esc => self.filter_by(String::new()),
            KeyCode::Tab => self.focus = self.focus.after(1),
            KeyCode::BackTab => self.focus = self.focus.after(Panel::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.list_state().scroll_down_by(1),
            KeyCode::Up | KeyCode::Char('k') => self.list_state().scroll_up_by(1),
            KeyCode::PageDown => self.list_state().scroll_down_by(PAGE),
            KeyCode::PageUp => self.list_state().scroll_up_by(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.list_state().select_first(),
            KeyCode::End | KeyCode::Char('G') => self.list_state().select_last(),
            _ => {}
        }
        self.keep_selections();
        Step::Stay
    }

    fn edit_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.filter_is_edited = false,
            KeyCode::Esc => {
                self.filter_is_edited = false;
                self.filter_by(String::new());
            }
            KeyCode::Backspace => {
                let mut filter = self.filter.clone();
                filter.pop();
                self.filter_by(filter);
            }
            KeyCode::Char(character) => self.filter_by(format!("{}{character}", self.filter)),
            _ => {}
        }
    }

    fn filter_by(&mut self, filter: String) {
        self.filter = filter;
        self.list();
    }

    fn list_state(&mut self) -> &mut ListState {
        &mut self.lists[self.focus as usize]
    }

    pub(super) fn selected(&self, panel: Panel) -> Option<usize> {
        self.lists[panel as usize].selected()
    }

    /// Lists what passes the filter. What was selected stays selected, wherever it is now.
    fn list(&mut self) {
        let selected = Panel::ALL.map(|panel| self.key_of(panel, self.selected(panel)));
        let words: Vec<String> = self.filter.split_whitespace().map(str::to_lowercase).collect();
        let fits = |texts: &[&str]| {
            let text = texts.join(" ").to_lowercase();
            words.iter().all(|word| text.contains(word))
        };
        let job = |it: &&JobHistoryView| {
            let (job, labels) = (&it.job, it.job.labels.join(" "));
            let pool = it.pool.as_deref().unwrap_or_default();
            let names = [&*job.name, &*job.repository, &*job.workflow_name, &*job.runner_name];
            fits(&[&names[..], &[&*labels, pool]].concat())
        };
        let Some(Data { status, waiting, running }) = &self.data else { return };
        let waits =
            |it: &&JobHistoryView| it.job.waiting.as_deref() != Some(Waiting::NOT_SELF_HOSTED);
        self.listed = Listed {
            attention: status
                .attention
                .iter()
                .filter(|it| fits(&[&it.title, &it.text]))
                .cloned()
                .collect(),
            pools: status
                .snapshot
                .pools
                .iter()
                .filter(|it| fits(&[&it.name, &it.labels.join(" ")]))
                .cloned()
                .collect(),
            waiting: waiting.iter().filter(waits).filter(job).cloned().collect(),
            running: running.iter().filter(job).cloned().collect(),
        };
        for (panel, key) in Panel::ALL.into_iter().zip(selected) {
            let Some(key) = key else { continue };
            let found = (0..self.count(panel))
                .find(|it| self.key_of(panel, Some(*it)).as_ref() == Some(&key));
            if found.is_some() {
                self.lists[panel as usize].select(found);
            }
        }
        self.keep_selections();
    }

    /// Each list has a selection, unless it is empty.
    fn keep_selections(&mut self) {
        for panel in Panel::ALL {
            let last = self.count(panel).checked_sub(1);
            let selected = last.map(|last| self.selected(panel).unwrap_or_default().min(last));
            self.lists[panel as usize].select(selected);
        }
    }

    pub(super) fn count(&self, panel: Panel) -> usize {
        let Listed { attention, pools, waiting, running } = &self.listed;
        match panel {
            Panel::Attention => attention.len(),
            Panel::Pools => pools.len(),
            Panel::Waiting => waiting.len(),
            Panel::Running => running.len(),
        }
    }

    /// What a row is recognized by when it was fetched again.
    fn key_of(&self, panel: Panel, index: Option<usize>) -> Option<String> {
        let Listed { attention, pools, waiting, running } = &self.listed;
        let job =
            |it: &JobHistoryView| format!("{}.{}.{}", it.job.id, it.job.run_attempt, it.job.host);
        let index = index?;
        match panel {
            Panel::Attention => attention.get(index).map(|it| format!("{} {}", it.title, it.text)),
            Panel::Pools => pools.get(index).map(|it| it.name.clone()),
            Panel::Waiting => waiting.get(index).map(job),
            Panel::Running => running.get(index).map(job),
        }
    }

    /// The selected job at GitHub, or the status page.
    fn address(&self) -> Option<String> {
        let Listed { pools, waiting, running, .. } = &self.listed;
        let index = self.selected(self.focus);
        let job = |jobs: &[JobHistoryView]| {
            let url = jobs.get(index?)?.job.html_url.clone();
            Some(url).filter(|url| !url.is_empty())
        };
        match self.focus {
            Panel::Attention => Some(format!("{}/", self.url)),
            Panel::Pools => {
                let name = utf8_percent_encode(&pools.get(index?)?.name, NON_ALPHANUMERIC);
                Some(format!("{}/#pool={name}", self.url))
            }
            Panel::Waiting => job(waiting),
            Panel::Running => job(running),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::{
        api::status::StatusView,
        cli::{findings::tests::findings, jobs::tests::job},
        config::Config,
        control::snapshot::Snapshot,
    };
    use edgerunner_scheduler::plan::State;

    /// One finding of each group, one pool, 30 jobs that wait and one that runs.
    pub(in crate::cli::top) fn data(now: UnixMs) -> Data {
        let state = State::new(Config::load(None, &|_| None).unwrap().planner_settings(), 1);
        let mut snapshot = Snapshot::new(&state, clock::now());
        let known = |id: u64| {
            json!({ "job_id": id, "run_attempt": 1, "host": "github.com", "repository": "acme/app",
                "labels": [], "queued_ms": now, "delivery": "", "reason": "pool_max",
                "message": "the pool is at its max of 4", "until_ms": null })
        };
        snapshot.waiting = (1..=30).map(|id| from_value(known(id)).unwrap()).collect();
        let waiting = (1..=30).map(|id| {
            let mut job = job(id, "queued", Some("the pool is at its max of 4"));
            job["queued_ms"] = json!(now - 300_000);
            from_value(job).unwrap()
        });
        let mut running = job(57_012_345_678, "in_progress", None);
        running["runner_name"] = json!("edge-default-1a2b3c4d");
        running["repository"] = json!("acme/running");
        running["started_ms"] = json!(now - 120_000);
        Data {
            status: StatusView { attention: findings(now), snapshot },
            waiting: waiting.collect(),
            running: vec![from_value(running).unwrap()],
        }
    }

    pub(in crate::cli::top) fn app() -> App {
        let mut app = App::new("http://edge:8081", true);
        app.update(Ok(data(clock::now().wall)));
        app
    }

    pub(in crate::cli::top) fn press(app: &mut App, keys: &str) -> Step {
        let mut step = Step::Stay;
        for key in keys.chars() {
            let code = match key {
                '\t' => KeyCode::Tab,
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                other => KeyCode::Char(other),
            };
            step = app.input(&Input::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        }
        step
    }

    #[test]
    fn q_and_control_c_end_it_and_r_refreshes() {
        let mut app = app();
        assert_eq!(press(&mut app, "q"), Step::Quit);
        assert_eq!(press(&mut app, "r"), Step::Refresh);
        for keys in ["", "/", "?"] {
            press(&mut app, keys);
            let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(app.input(&Input::Key(control_c)), Step::Quit);
        }
    }

    #[test]
    fn tab_goes_around_the_panels_and_j_and_k_through_the_rows_of_one() {
        let mut app = app();
        press(&mut app, "j\t\tjjk");
        assert_eq!(app.focus, Panel::Waiting);
        assert_eq!(app.selected(Panel::Waiting), Some(1));
        assert_eq!(app.selected(Panel::Attention), Some(1));
        press(&mut app, "G");
        assert_eq!(app.selected(Panel::Waiting), Some(29));
        press(&mut app, "jg");
        assert_eq!(app.selected(Panel::Waiting), Some(0));
        press(&mut app, "k\t\t");
        assert_eq!((app.focus, app.selected(Panel::Waiting)), (Panel::Attention, Some(0)));
    }

    #[test]
    fn o_opens_a_job_at_github_and_the_page_for_the_rest() {
        let mut app = app();
        let open = |url: &str| Step::Open(url.to_owned());
        assert_eq!(press(&mut app, "o"), open("http://edge:8081/"));
        assert_eq!(press(&mut app, "\to"), open("http://edge:8081/#pool=default"));
        assert_eq!(press(&mut app, "\t\n"), open("https://github.com/x"));
        app.listed.waiting.clear();
        assert_eq!(press(&mut app, "o"), Step::Stay);
    }

    #[test]
    fn the_filter_applies_to_all_panels_while_it_is_typed_and_escape_removes_it() {
        let mut app = app();
        press(&mut app, "/BUILD 17");
        assert_eq!(Panel::ALL.map(|panel| app.count(panel)), [0, 0, 1, 0]);
        assert!(app.filter_is_edited, "q and j are letters of it");
        press(&mut app, "\x08\x08\x08\x08\x08\x08\x08\x08acme/running\n");
        assert_eq!(Panel::ALL.map(|panel| app.count(panel)), [0, 0, 0, 1]);
        assert!(!app.filter_is_edited);
        press(&mut app, "\x1b");
        assert_eq!(Panel::ALL.map(|panel| app.count(panel)), [3, 1, 30, 1]);
    }

    #[test]
    fn the_selected_job_stays_selected_when_others_come_and_go() {
        let mut app = app();
        press(&mut app, "\t\tjjjj");
        assert_eq!(app.listed.waiting[4].job.id, 5);
        let mut later = data(clock::now().wall);
        later.waiting.drain(..3);
        app.update(Ok(later));
        assert_eq!(app.selected(Panel::Waiting), Some(1));
        assert_eq!(app.listed.waiting[1].job.id, 5);
        let mut gone = data(clock::now().wall);
        gone.waiting.truncate(1);
        app.update(Ok(gone));
        assert_eq!(app.selected(Panel::Waiting), Some(0));
        let mut none = data(clock::now().wall);
        none.waiting.clear();
        app.update(Ok(none));
        assert_eq!(app.selected(Panel::Waiting), None);
    }

    #[test]
    fn what_was_fetched_stays_while_the_sidecar_is_away() {
        let mut app = app();
        app.update(Err("no response".into()));
        assert_eq!((app.count(Panel::Waiting), app.problem.as_deref()), (30, Some("no response")));
        app.update(Ok(data(clock::now().wall)));
        assert_eq!(app.problem, None);
    }
}
