//! The description as a file, which the web client's types are made from.

use directory::store::Location;

use super::Server;
use crate::api::described;

#[tokio::test]
async fn the_description_is_current() {
    // It has a folder of its own for its database.
    let server = Server::start(Location::Sqlite("unused".into())).await;
    let mut printed = described(&server.api).1.to_pretty_json().unwrap();
    printed.push('\n');
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../web-client/openapi.json");
    if std::env::var_os("TERRACE_WRITE_DOCUMENTS").is_some() {
        std::fs::write(file, &printed).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        written == printed,
        "web-client/openapi.json is not what the server serves; write it with \
         TERRACE_WRITE_DOCUMENTS=1 cargo test -p server the_description_is_current, then the client's types with \
         npm run api-types in web-client"
    );
}
