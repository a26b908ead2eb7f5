//! GitHub's IP ranges.

use super::*;

#[tokio::test]
async fn githubs_ip_ranges_are_read() {
    let server =
        Server::always(200, &[], r#"{"hooks":["192.30.252.0/22"],"web":["192.30.252.0/22"]}"#)
            .await;
    assert_eq!(server.github().webhook_addresses().await.unwrap(), ["192.30.252.0/22"]);
    let seen = server.only();
    assert_eq!((&seen.method, seen.uri.path()), (&Method::GET, "/meta"));
    statuses::check_headers(&seen);
}
