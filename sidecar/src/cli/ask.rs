//! Questions to the person at the terminal.

use std::io::{self, IsTerminal as _};

use anyhow::Result;
use dialoguer::{Confirm, Input, Password, Select, theme::ColorfulTheme};
use secrecy::SecretString;

/// What is wrong with an answer, if anything.
pub(super) type Check<'a> = &'a dyn Fn(&str) -> Result<(), String>;

pub(super) trait Ask {
    /// The index of the answer.
    fn choose(&self, question: &str, answers: &[&str]) -> Result<usize>;
    /// Asks again until `check` has no objection.
    fn text(&self, question: &str, check: Check<'_>) -> Result<String>;
    /// The same, without showing what is typed.
    fn secret(&self, question: &str, check: Check<'_>) -> Result<SecretString>;
}

/// Questions appear on standard error, so that standard output has the result alone.
pub(super) struct Terminal {
    theme: ColorfulTheme,
}

impl Terminal {
    /// `None` if nobody can answer.
    pub(super) fn find() -> Option<Self> {
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        is_terminal.then(|| Self { theme: ColorfulTheme::default() })
    }

    /// No is the default.
    pub(super) fn confirm(&self, question: &str) -> Result<bool> {
        Ok(Confirm::with_theme(&self.theme).with_prompt(question).default(false).interact()?)
    }
}

impl Ask for Terminal {
    fn choose(&self, question: &str, answers: &[&str]) -> Result<usize> {
        Ok(Select::with_theme(&self.theme)
            .with_prompt(question)
            .items(answers)
            .default(0)
            .interact()?)
    }

    fn text(&self, question: &str, check: Check<'_>) -> Result<String> {
        let input = Input::<String>::with_theme(&self.theme).with_prompt(question);
        let answer = input.validate_with(|text: &String| check(text.trim())).interact_text()?;
        Ok(answer.trim().to_owned())
    }

    fn secret(&self, question: &str, check: Check<'_>) -> Result<SecretString> {
        let input = Password::with_theme(&self.theme).with_prompt(question);
        let answer = input.validate_with(|text: &String| check(text.trim())).interact()?;
        Ok(answer.trim().into())
    }
}
