//! The OpenAPI description of the API. Its parts are written next to the operations and types.

use utoipa::{
    IntoResponses as _, Modify, OpenApi,
    openapi::{
        OpenApi as Description, PathItem,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::problem::CommonResponses;

/// Name of the security scheme in the operations.
const TOKEN: &str = "api_token";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "edgerunner",
        description = "Read what the sidecar knows, and make changes. Times are milliseconds since \
                       the Unix epoch."
    ),
    modifiers(&Token)
)]
pub(super) struct Head;

struct Token;

impl Modify for Token {
    fn modify(&self, description: &mut Description) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("`server.api_token`; the API is read-only if it is not set."))
            .build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
    }
}

/// Adds the responses that every operation may give.
pub(super) fn with_common_responses(mut description: Description) -> Description {
    for path in description.paths.paths.values_mut() {
        for operation in operations(path) {
            operation.responses.responses.extend(CommonResponses::responses());
        }
    }
    description
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.post, &mut path.delete].into_iter().flatten()
}
