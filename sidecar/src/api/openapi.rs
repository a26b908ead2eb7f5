//! The API as machines read it. Operations and types tell it beside their code.

use utoipa::{
    IntoResponses as _, Modify, OpenApi,
    openapi::{
        OpenApi as Description, PathItem,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::problem::AnyCall;

/// Name of the security scheme, as operations have it.
const TOKEN: &str = "api_token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "edgerunner",
        description = "What the sidecar knows, and what operators may change. Times are \
                       milliseconds since the Unix epoch."
    ),
    modifiers(&Token)
)]
pub(super) struct Head;

struct Token;

impl Modify for Token {
    fn modify(&self, description: &mut Description) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("`server.api_token`; without one nothing can be changed."))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
    }
}

pub(super) fn with_what_all_may_answer(mut description: Description) -> Description {
    for path in description.paths.paths.values_mut() {
        for operation in operations(path) {
            operation.responses.responses.extend(AnyCall::responses());
        }
    }
    description
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post, &mut path.delete].into_iter().flatten()
}
