//! The view on the screen: a line with what is going on, four panels, details of what is selected,
//! and the keys.

use anstyle::{AnsiColor, Effects};
use ratatui::{
    Frame,
    layout::{Constraint, Flex, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, List, ListItem, Padding, Paragraph, Wrap},
};

use super::app::{App, Listed, Panel};
use crate::{
    api::views::JobHistoryView,
    cli::{
        findings::{CALM, details, facts, heading, is_calm},
        output::{Table, Width, age, cut, parts, printable},
        pools,
    },
    control::{attention::Finding, snapshot::on_server},
};
use edgerunner_scheduler::model::UnixMs;

/// Rows of details of what is selected.
const DETAILS: u16 = 4;
/// The least height of a panel: its frame, the header and one row.
const PANEL_MIN: u16 = 4;
/// Of frame and header.
const AROUND: u16 = 3;

const KEYS: &str = " q quit · tab panel · ↑↓ row · / filter · o open · r refresh · ? help";

const HELP: [(&str, &str); 9] = [
    ("tab, shift+tab", "next and previous panel"),
    ("↑ ↓, k j", "row above and below"),
    ("page up and down", "ten rows at a time"),
    ("g, G", "first and last row"),
    ("/", "filter all panels by words; enter keeps the filter, esc removes it"),
    ("o, enter", "open the job at GitHub, or the status page, in a browser"),
    ("r", "refresh now; it is refreshed every 2 s"),
    ("?", "this help; any key closes it"),
    ("q, ctrl+c", "quit"),
];

pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, now: UnixMs) {
    let [head, rest, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
            .areas(frame.area());
    frame.render_widget(headline(app, now), head);
    frame.render_widget(footline(app), foot);
    if app.data.is_some() {
        panels(frame, app, rest, now);
    } else {
        let text = app.problem.as_deref().unwrap_or("Connecting…");
        let text = Paragraph::new(printable(text.to_owned())).wrap(Wrap { trim: true });
        frame.render_widget(text.block(Block::new().padding(Padding::uniform(1))), rest);
    }
    if app.help {
        help(frame, app);
    }
}

fn panels(frame: &mut Frame<'_>, app: &mut App, area: Rect, now: UnixMs) {
    let wanted = Panel::ALL.map(|panel| wanted_height(app, panel));
    let with_details = area.height.saturating_sub(DETAILS);
    match heights(wanted, with_details) {
        Some(heights) => {
            let rows = heights.map(Constraint::Length);
            let [a, b, c, d] = Layout::vertical(rows).areas(area);
            for (panel, area) in Panel::ALL.into_iter().zip([a, b, c, d]) {
                draw_panel(frame, app, panel, area, now);
            }
            let below = Rect { y: area.bottom() - DETAILS, height: DETAILS, ..area };
            frame.render_widget(selected_details(app, now), below);
        }
        // There is room for one of them.
        None => draw_panel(frame, app, app.focus, area, now),
    }
}

fn wanted_height(app: &App, panel: Panel) -> u16 {
    let rows = u16::try_from(app.count(panel)).unwrap_or(u16::MAX);
    rows.max(1).saturating_add(AROUND)
}

/// The heights of the panels, of which each has at least one row; `None` if there is no room for
/// that. Who wants more gets a row in turn.
fn heights(wanted: [u16; 4], available: u16) -> Option<[u16; 4]> {
    let mut heights = [PANEL_MIN; 4];
    let mut left = available.checked_sub(PANEL_MIN * 4)?;
    while left > 0 {
        let mut none_wants = true;
        for (height, wanted) in heights.iter_mut().zip(wanted) {
            if *height < wanted && left > 0 {
                *height += 1;
                left -= 1;
                none_wants = false;
            }
        }
        if none_wants {
            break;
        }
    }
    Some(heights)
}

fn draw_panel(frame: &mut Frame<'_>, app: &mut App, panel: Panel, area: Rect, now: UnixMs) {
    let focused = app.focus == panel;
    let style = if focused { Style::new().add_modifier(Modifier::BOLD) } else { dim() };
    let block = Block::bordered().border_style(style).title(title(app, panel));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    if app.count(panel) == 0 {
        frame.render_widget(nothing(app, panel), inner);
        return;
    }
    let lines = table(app, panel, now).lines(Width::columns(inner.width));
    let mut lines = lines.iter().map(|line| to_line(line, app.color));
    let [head, rows] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(inner);
    if let Some(header) = lines.next() {
        frame.render_widget(header, head);
    }
    let list = List::new(lines.map(ListItem::new));
    let marked = if focused { Modifier::REVERSED } else { Modifier::empty() };
    let list = list.highlight_style(Style::new().add_modifier(marked));
    frame.render_stateful_widget(list, rows, &mut app.lists[panel as usize]);
}

fn title(app: &App, panel: Panel) -> String {
    let Some(data) = &app.data else { return String::new() };
    let status = &data.status;
    let (name, all) = match panel {
        Panel::Attention => ("Needs attention", status.attention.len()),
        Panel::Pools => ("Pools", status.snapshot.pools.len()),
        Panel::Waiting => ("Waiting jobs", status.snapshot.waiting.len()),
        Panel::Running => ("Running jobs", data.running.len()),
    };
    match app.count(panel) {
        shown if shown < all => format!(" {name}: {shown} of {all} "),
        _ => format!(" {name}: {all} "),
    }
}

/// What an empty panel says.
fn nothing(app: &App, panel: Panel) -> Line<'static> {
    if !app.filter.is_empty() {
        return Line::styled("Nothing passes the filter.", dim());
    }
    match panel {
        Panel::Attention => Line::styled(CALM, colored(app.color, Color::Green)),
        Panel::Pools => Line::styled("No pools.", dim()),
        Panel::Waiting => Line::styled("No job waits.", dim()),
        Panel::Running => Line::styled("No job runs.", dim()),
    }
}

fn table(app: &App, panel: Panel, now: UnixMs) -> Table {
    let Listed { attention, pools, waiting, running } = &app.listed;
    match panel {
        Panel::Attention => findings_table(attention),
        Panel::Pools => pools::to_table(pools),
        Panel::Waiting => jobs_table("WAITED", "WHY", waiting, |JobHistoryView { job, .. }| {
            (age(job.queued_ms, now), job.waiting_message.clone().unwrap_or_default())
        }),
        Panel::Running => jobs_table("RAN", "RUNNER", running, |JobHistoryView { job, .. }| {
            let ran = job.started_ms.map(|at| age(at, now)).unwrap_or_default();
            (ran, job.runner_name.clone())
        }),
    }
}

fn findings_table(findings: &[Finding]) -> Table {
    let mut table = Table::new(["GROUP", "FINDING", "JOBS", "CAUSE"], &[0])
        .cut(&[(1, 20), (3, 20)])
        .optional(&[2, 3]);
    for finding in findings {
        table.push([
            heading(finding.group).0.to_owned(),
            finding.title.clone(),
            Some(finding.jobs)
                .filter(|jobs| *jobs > 0)
                .map(|it| it.to_string())
                .unwrap_or_default(),
            finding.text.clone(),
        ]);
    }
    table
}

/// `last`: how long it has been so, and what people look for.
fn jobs_table(
    time: &'static str,
    what: &'static str,
    jobs: &[JobHistoryView],
    last: impl Fn(&JobHistoryView) -> (String, String),
) -> Table {
    let mut table = Table::new(["NAME", "REPOSITORY", "WORKFLOW", "POOL", time, what], &[])
        .cut(&[(0, 12), (1, 12), (2, 8), (3, 8), (5, 16)])
        .optional(&[2, 3, 1]);
    let hosts: Vec<String> = jobs.iter().map(|it| it.job.host.clone()).collect();
    for it in jobs {
        table.keep(5, &it.job.runner_name);
        let (time, what) = last(it);
        table.push([
            it.job.name.clone(),
            on_server(&it.job.repository, &it.job.host, &hosts),
            it.job.workflow_name.clone(),
            it.pool.clone().unwrap_or_default(),
            time,
            what,
        ]);
    }
    table
}

fn headline(app: &App, now: UnixMs) -> Line<'static> {
    let url = printable(app.url.clone());
    let mut line = Line::from(vec![
        Span::styled(" edgerunner ", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{url} ")),
    ]);
    if let Some(data) = &app.data {
        let status = &data.status.snapshot;
        let runners = match status.runners_max {
            Some(max) => format!("{} of {max} runners", status.runners_live),
            None => format!("{} runners", status.runners_live),
        };
        line.push_span(Span::raw(format!("· {runners} · {} waiting ", status.waiting.len())));
        if is_calm(&data.status.attention) && app.problem.is_none() {
            line.push_span(Span::styled("· ok", colored(app.color, Color::Green)));
        }
    }
    if let (Some(_), Some(fetched)) = (&app.problem, app.fetched_ms) {
        let since = format!("· no answer for {}, trying again ", age(fetched, now));
        line.push_span(Span::styled(since, colored(app.color, Color::Red)));
    }
    line
}

fn footline(app: &App) -> Line<'static> {
    let filter = printable(app.filter.clone());
    match (&app.said, app.filter_is_edited) {
        (_, true) => Line::raw(format!(" /{filter}█  enter keep · esc remove")),
        (Some(said), _) => Line::raw(printable(format!(" {said}"))),
        (None, _) if !filter.is_empty() => {
            Line::raw(format!(" filter: {filter} · esc remove · / change · q quit"))
        }
        (None, _) => Line::styled(KEYS, dim()),
    }
}

/// Of the selected row: what a narrow terminal cuts. If the sidecar is away, why.
fn selected_details(app: &App, now: UnixMs) -> Paragraph<'static> {
    let lines = match &app.problem {
        Some(problem) => {
            let problem = printable(problem.clone());
            vec![Line::styled(problem, colored(app.color, Color::Red))]
        }
        None => details_of(app, now).into_iter().map(Line::raw).collect(),
    };
    let block = Block::new().padding(Padding::horizontal(1));
    Paragraph::new(lines).wrap(Wrap { trim: true }).block(block)
}

fn details_of(app: &App, now: UnixMs) -> Vec<String> {
    let Listed { attention, pools, waiting, running } = &app.listed;
    let Some(index) = app.selected(app.focus) else { return Vec::new() };
    let job = |it: &JobHistoryView, last: String| {
        let job = &it.job;
        let names = [&job.name, &job.repository, &job.workflow_name, &job.head_branch];
        let names = names.map(|name| cut(name, 40)).join(" · ");
        [names, last, job.html_url.clone()].map(printable).to_vec()
    };
    let found = match app.focus {
        Panel::Attention => attention.get(index).map(|finding| {
            let facts = Some(facts(finding, now)).filter(|facts| !facts.is_empty());
            let facts = facts.map(|facts| format!("({facts})"));
            let [text, to_do @ ..] = &details(finding)[..] else { return Vec::new() };
            vec![
                [Some(text.clone()), facts].into_iter().flatten().collect::<Vec<_>>().join(" "),
                to_do.join(" "),
            ]
        }),
        Panel::Pools => pools.get(index).map(|pool| {
            let draining = if pool.draining || pool.all_draining { " · draining" } else { "" };
            let labels = format!("{}: {}{draining}", pool.name, pool.labels.join(", "));
            vec![printable(labels)]
        }),
        Panel::Waiting => waiting.get(index).map(|it| {
            let labels = it.job.labels.join(", ");
            let why = it.job.waiting_message.as_deref().unwrap_or_default();
            job(it, format!("{labels}: {why}"))
        }),
        Panel::Running => running.get(index).map(|it| {
            let node = it.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
            job(it, format!("{}{node}", it.job.runner_name))
        }),
    };
    found.unwrap_or_default()
}

fn help(frame: &mut Frame<'_>, app: &App) {
    let lines = HELP.map(|(keys, what)| Line::raw(format!("{keys:<18}{what}")));
    let widest = lines.iter().map(Line::width).max().unwrap_or_default();
    let (width, height) = (u16::try_from(widest).unwrap_or(u16::MAX), HELP.len() as u16);
    let [area] = Layout::vertical([Constraint::Length(height.saturating_add(2))])
        .flex(Flex::Center)
        .areas(frame.area());
    let [area] = Layout::horizontal([Constraint::Length(width.saturating_add(4))])
        .flex(Flex::Center)
        .areas(area);
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" Keys ").padding(Padding::horizontal(1));
    let block = block.border_style(colored(app.color, Color::Cyan));
    frame.render_widget(Paragraph::new(lines.to_vec()).block(block), area);
}

/// A line of a table.
fn to_line(line: &str, color: bool) -> Line<'static> {
    let span = |(style, text)| Span::styled(text, to_style(style, color));
    parts(line).into_iter().map(span).collect::<Vec<_>>().into()
}

fn to_style(style: anstyle::Style, color: bool) -> Style {
    let wanted = style.get_fg_color().and_then(|it| match it {
        anstyle::Color::Ansi(AnsiColor::Yellow) => Some(Color::Yellow),
        anstyle::Color::Ansi(AnsiColor::Cyan) => Some(Color::Cyan),
        anstyle::Color::Ansi(AnsiColor::Green) => Some(Color::Green),
        anstyle::Color::Ansi(AnsiColor::Red) => Some(Color::Red),
        _ => None,
    });
    let base = wanted.map_or_else(Style::new, |wanted| colored(color, wanted));
    match style.get_effects().contains(Effects::BOLD) {
        true => base.add_modifier(Modifier::BOLD),
        false => base,
    }
}

/// No colour if nobody wants any.
fn colored(color: bool, wanted: Color) -> Style {
    if color { Style::new().fg(wanted) } else { Style::new() }
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

    use super::{
        super::app::tests::{app, data, press},
        *,
    };
    use crate::control::clock;

    fn drawn(app: &mut App, (width, height): (u16, u16)) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app, clock::now().wall)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn text(app: &mut App, size: (u16, u16)) -> String {
        let buffer = drawn(app, size);
        let rows = buffer.content.chunks(buffer.area.width.into());
        let row = |cells: &[ratatui::buffer::Cell]| {
            let row: String = cells.iter().map(|cell| cell.symbol()).collect();
            row.trim_end().to_owned() + "\n"
        };
        rows.map(row).collect()
    }

    fn has(text: &str, parts: &[&str]) {
        for part in parts {
            assert!(text.contains(part), "no {part}:\n{text}");
        }
    }

    #[test]
    fn everything_fits_on_80_by_24() {
        let text = text(&mut app(), (80, 24));
        has(
            &text,
            &[
                "edgerunner http://edge:8081 · 0 runners · 30 waiting",
                "Needs attention: 3",
                "Broken   Failing: pool a",
                "Blocked  Pool b",
                "Pools: 1",
                "default",
                "Waiting jobs: 30 ",
                "build 1 ",
                "acme/app",
                "5 min",
                "the pool is at its max",
                "Running jobs: 1",
                "acme/running",
                "2 min",
                "edge-default-1a2b3c4d",
                // What to do about the selected finding.
                "Start Docker.",
                "Run: edgerunner doctor",
                "q quit",
            ],
        );
        assert!(!text.contains("57012345678"), "people think in names:\n{text}");
    }

    #[test]
    fn a_small_terminal_shows_the_panel_in_use_and_none_is_too_small() {
        let mut app = app();
        let small = text(&mut app, (60, 12));
        has(&small, &["Needs attention", "Broken"]);
        assert!(!small.contains("Waiting jobs"), "{small}");
        press(&mut app, "\t\t");
        has(&text(&mut app, (60, 12)), &["Waiting jobs", "build 1 "]);
        for width in [1, 2, 5, 20, 300] {
            for height in [1, 2, 3, 5, 9, 17, 100] {
                app.help = height % 2 == 0;
                drawn(&mut app, (width, height));
            }
        }
    }

    #[test]
    fn a_sidecar_that_is_away_is_named_and_what_was_there_stays() {
        let mut app = App::new("http://edge:8081", true);
        has(&text(&mut app, (80, 24)), &["Connecting…"]);
        let problem = "no response from http://edge:8081: is `edgerunner serve` running?";
        app.update(Err(problem.into()));
        has(&text(&mut app, (80, 24)), &["is `edgerunner serve` running?"]);
        app.update(Ok(data(clock::now().wall)));
        app.update(Err(problem.into()));
        let away = text(&mut app, (100, 24));
        has(
            &away,
            &["no answer for 0 s, trying again", "is `edgerunner serve` running?", "build 1 "],
        );
        app.update(Ok(data(clock::now().wall)));
        let back = text(&mut app, (80, 24));
        assert!(!back.contains("no answer") && !back.contains("no response"), "{back}");
    }

    #[test]
    fn nothing_to_do_is_one_line() {
        let mut app = app();
        let mut calm = data(clock::now().wall);
        calm.status.attention.clear();
        (calm.waiting, calm.running) = (Vec::new(), Vec::new());
        app.update(Ok(calm));
        let text = text(&mut app, (80, 24));
        has(&text, &[CALM, "No job waits.", "No job runs.", "· ok"]);
    }

    #[test]
    fn help_and_filter_are_shown() {
        let mut app = app();
        press(&mut app, "?");
        has(&text(&mut app, (80, 24)), &["Keys", "open the job at GitHub", "quit"]);
        press(&mut app, "x/nothing has this");
        has(&text(&mut app, (80, 24)), &["/nothing has this█", "Nothing passes the filter."]);
        press(&mut app, "\n");
        has(&text(&mut app, (80, 24)), &["filter: nothing has this · esc remove"]);
    }

    #[test]
    fn states_have_colours_only_if_they_are_wanted() {
        let colors = |color: bool| {
            let mut app = app();
            app.color = color;
            let buffer = drawn(&mut app, (80, 24));
            buffer.content.iter().filter(|cell| cell.fg != Color::Reset).count()
        };
        assert!(colors(true) > 0);
        assert_eq!(colors(false), 0);
    }

    #[test]
    fn each_panel_gets_a_row_and_what_is_left_goes_to_who_wants_more() {
        assert_eq!(heights([9, 9, 9, 9], 15), None);
        assert_eq!(heights([9, 4, 9, 9], 16), Some([4, 4, 4, 4]));
        assert_eq!(heights([5, 4, 90, 9], 24), Some([5, 4, 8, 7]));
        assert_eq!(heights([5, 4, 5, 5], 50), Some([5, 4, 5, 5]));
    }
}
