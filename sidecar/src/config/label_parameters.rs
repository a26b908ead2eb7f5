//! What jobs may ask a pool for by their labels.

use std::{collections::HashSet, ops::RangeInclusive};

use super::{
    check::LABEL_CHARS_MAX,
    document::Document,
    sections::{LabelParameters, Range},
};
use edgerunner_scheduler::plan;

impl Document {
    pub(super) fn check_label_parameters(
        &mut self,
        pool: &str,
        written: &LabelParameters,
    ) -> plan::LabelParameters {
        let table = format!("{pool}/label_parameters");
        let mut images = HashSet::new();
        for (index, image) in written.image.iter().enumerate() {
            let location = format!("{table}/image/{index}");
            let label = format!("image={image}");
            if image.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
                || label.chars().count() > LABEL_CHARS_MAX
            {
                let problem = "write an image such as ghcr.io/actions/actions-runner:latest, of up \
                               to 250 characters";
                self.error(&location, problem);
            } else if !images.insert(image.to_ascii_lowercase()) {
                let problem = "this image is in the list twice, since GitHub ignores case in \
                               labels: remove it";
                self.error(&location, problem);
            }
        }
        let mut range = |key: &str, written: &Option<Range>| {
            let range = written.as_ref()?;
            self.check_range(&format!("{table}/{key}"), range)
        };
        plan::LabelParameters {
            cpu: range("cpu", &written.cpu),
            memory_gib: range("memory_gib", &written.memory_gib),
            image: written.image.clone(),
            run: written.run,
        }
    }

    fn check_range(&mut self, location: &str, range: &Range) -> Option<RangeInclusive<u32>> {
        let Range { min, max } = *range;
        match (min, max) {
            (0, _) | (_, 0) => self.expected(location),
            _ if min > max => {
                self.error(&format!("{location}/min"), format!("write at most max ({max})"));
            }
            _ => return Some(min..=max),
        }
        None
    }
}
