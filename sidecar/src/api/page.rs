use axum::response::Html;

pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("../page.html"))
}
