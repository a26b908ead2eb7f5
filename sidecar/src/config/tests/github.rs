//! Credentials, and the connection to GitHub.

use serde_json::Value;

use super::*;
use crate::config::ConfigErrors;
use edgerunner_scheduler::plan;

#[test]
fn ca_certificates_and_proxies_are_set_for_all_credentials_or_for_each() {
    let ca = TempFile::new(&ca_pem());
    let both = TempFile::new(&format!("{}{}", ca_pem(), ca_pem()));
    let file = format!(
        r#"[github]
token = "ghp_1"
ca_file = {:?}
[[credentials]]
name = "ghes"
targets = ["acme"]
token = "ghp_2"
api_url = "https://ghe.example/api/v3"
ca_file = {:?}
[[credentials]]
name = "plain"
targets = ["other"]
token = "ghp_3"
api_url = "http://127.0.0.1:1"
"#,
        ca.path(),
        both.path()
    );
    let ca_and_proxy = |env: &[(&str, &str)]| -> Vec<(usize, bool)> {
        let credentials = load(&file, env).unwrap().credentials;
        credentials.iter().map(|it| (it.ca.len(), it.proxy.is_some())).collect()
    };
    assert_eq!(ca_and_proxy(&[]), [(2, false), (1, false), (1, false)]);
    let proxy = ("HTTPS_PROXY", "http://user:pass@proxy:3128");
    assert_eq!(ca_and_proxy(&[proxy]), [(2, true), (1, false), (1, true)]);
    assert_eq!(
        ca_and_proxy(&[proxy, ("no_proxy", "ghe.example")]),
        [(2, false), (1, false), (1, true)]
    );

    let reported = |env: &[(&str, &str)]| errors(&file, env);
    let problem = "write a URL such as http://HOST:3128 or http://USER:PASSWORD@HOST:3128";
    assert_eq!(reported(&[("https_proxy", "socks5://proxy")]), [format!("https_proxy: {problem}")]);
    let plain = reported(&[("GITHUB_PROXY_URL", "http://proxy")]);
    assert!(plain[0].starts_with("GITHUB_PROXY_URL: a proxy needs an api_url with TLS"));

    let text = TempFile::new("no certificate");
    let key = TempFile::new(APP_KEY);
    for (path, problem) in [
        ("/no/such/file".into(), "cannot read that file"),
        (text.path(), "there is no certificate in that file"),
        (key.path(), "there is no certificate in that file"),
    ] {
        let file = format!("[[credentials]]\nca_file = {path:?}\n");
        let reported = errors(&file, &[("GITHUB_CA_FILE", path.to_str().unwrap())]);
        for location in ["2: credentials[0].ca_file: ", "GITHUB_CA_FILE: "] {
            assert!(
                reported.iter().any(|line| line.starts_with(&format!("{location}{problem}"))),
                "{reported:?}"
            );
        }
    }
}

#[test]
fn only_serve_needs_a_token() {
    assert!(Config::load(None, &no_variables).is_ok());
    let printed = Config::load_to_serve(None, &no_variables).unwrap_err().to_string();
    assert_eq!(
        printed,
        "github.token: no token: set GITHUB_TOKEN, GITHUB_TOKEN_FILE or github.token, or \
         app_id and app_private_key_file of a GitHub App"
    );
    // One error, not two: the cause is the file.
    let env = [("GITHUB_TOKEN_FILE", "/does/not/exist")];
    let ConfigErrors(reported) =
        Config::load_to_serve(None, &|name| variable(&env, name)).unwrap_err();
    assert_eq!(reported.len(), 1, "{reported:?}");
}

#[test]
fn a_token_is_what_github_shows_and_nothing_else() {
    for (token, problem) in [
        ("\u{feff}ghp_do_not_print_me", "byte order mark"),
        ("\"ghp_do_not_print_me\"", "without quotes"),
        ("GITHUB_TOKEN=ghp_do_not_print_me", "without NAME="),
        ("ghp_do_not_print_me ", "without spaces"),
        (" ghp_do_not_print_me", "without spaces"),
        ("ghp_do\nnot_print_me", "without spaces and line breaks"),
        ("ghp_dö", "printable ASCII"),
    ] {
        let [reported] = &errors("", &[("GITHUB_TOKEN", token)])[..] else { panic!("{token:?}") };
        assert!(reported.starts_with("GITHUB_TOKEN: "), "{reported}");
        assert!(reported.contains(problem), "{token:?}: {reported}");

        let secret = TempFile::new(token);
        let file = format!("[github]\ntoken_file = {:?}\n", secret.path());
        let [reported] = &errors(&file, &[])[..] else { panic!("{token:?}") };
        assert!(reported.starts_with("2: github.token_file: "), "{reported}");

        let file = "[[credentials]]\nname = \"acme\"\ntargets = [\"acme\"]\ntoken = ";
        let [reported] = &errors(&format!("{file}{}\n", Value::from(token)), &[])[..] else {
            panic!("{token:?}")
        };
        assert!(reported.starts_with("4: credentials[0].token: "), "{reported}");
    }
}

#[test]
fn an_app_needs_its_id_and_its_key() {
    let serve = |env: &[(&str, &str)]| {
        let ConfigErrors(errors) =
            Config::load_to_serve(None, &|name| variable(env, name)).unwrap_err();
        let [error] = &errors[..] else { panic!("{errors:?}") };
        error.to_string()
    };
    let without_key = serve(&[("GITHUB_APP_ID", "7")]);
    assert!(without_key.starts_with("GITHUB_APP_ID: a GitHub App also needs its private key"));
    let without_id = serve(&[("GITHUB_APP_PRIVATE_KEY_FILE", APP_KEY_FILE)]);
    assert!(without_id.starts_with("GITHUB_APP_PRIVATE_KEY_FILE: a GitHub App also needs its id"));
}

#[test]
fn plain_http_to_another_machine_is_said_twice() {
    let problem = "http:// would send the token unencrypted to another machine";
    for url in ["http://ghe.example/api/v3", "http://10.0.0.1/api/v3", "http://[::2]"] {
        let file = format!(
            "[github]\napi_url = \"{url}\"\n[[credentials]]\nname = \"a\"\n\
                            targets = [\"a\"]\ntoken = \"t\"\napi_url = \"{url}\"\n"
        );
        let reported = errors(&file, &[]);
        assert!(reported[0].starts_with(&format!("2: github.api_url: {problem}")), "{reported:?}");
        let second = format!("7: credentials[0].api_url: {problem}");
        assert!(reported[1].starts_with(&second), "{reported:?}");
        assert!(load(&file, &[("GITHUB_ALLOW_HTTP", "true")]).is_ok());
    }
    for url in ["http://localhost:1", "http://127.8.0.1", "http://[::1]:80"] {
        assert!(load(&format!("github.api_url = \"{url}\""), &[]).is_ok(), "{url}");
    }
}

#[test]
fn api_urls_are_checked() {
    let web_url = |api_url: &str| {
        let config = load(&format!("github.api_url = \"{api_url}\""), &[]).unwrap();
        config.github.web_url()
    };
    assert_eq!(web_url("https://api.github.com"), "https://github.com");
    assert_eq!(web_url("https://api.acme.ghe.com"), "https://acme.ghe.com");
    assert_eq!(web_url("https://ghe.example.com/api/v3"), "https://ghe.example.com");
    assert_eq!(web_url("http://127.0.0.1:8082"), "http://127.0.0.1:8082");
    for url in [
        "api.github.com",
        "ftp://api.github.com",
        "https://github.com",
        "https://api.github.com/",
        "https://api.github.com?x",
        "https://api.github.com/api/v4",
        "https://ghe.example.com",
        "https://user:ghp_do_not_print_me@api.github.com",
    ] {
        let reported = errors(&format!("github.api_url = \"{url}\""), &[]);
        assert!(reported[0].starts_with("1: github.api_url: "), "{url}: {reported:?}");
    }
    for (url, advice) in [
        ("https://www.github.com", "write https://api.github.com"),
        ("https://GitHub.com/acme", "write https://api.github.com"),
        ("https://api.github.com/api/v3", "write https://api.github.com"),
        ("https://acme.ghe.com", "write https://api.SUBDOMAIN.ghe.com"),
        ("https://acme.ghe.com/api/v3", "write https://api.SUBDOMAIN.ghe.com"),
        ("https://api.ghe.com", "write https://api.SUBDOMAIN.ghe.com"),
        ("https://api.acme.ghe.com/api/v3", "write https://api.SUBDOMAIN.ghe.com"),
        ("https://ghe.example.com", "the API of a GitHub Enterprise Server ends in /api/v3"),
    ] {
        let reported = errors(&format!("github.api_url = \"{url}\""), &[]);
        assert!(reported[0].contains(advice), "{url}: {reported:?}");
    }
}

#[test]
fn credentials_inherit_settings_from_github() {
    let secret = TempFile::new("s3cret\n");
    let file = CREDENTIALS.replace("FILE", secret.path().to_str().unwrap());
    let env = [("GITHUB_TOKEN", "of-github"), ("GITHUB_API_URL", "https://api.acme.ghe.com")];
    let config = load(&file, &env).unwrap();
    assert!(!format!("{config:?}").contains(SECRET));
    let reported: Vec<_> = config
        .credentials
        .iter()
        .map(|it| (&*it.name, &*it.api_url, &*it.web_url, token(it)))
        .collect();
    let (api_url, web_url) = ("https://api.acme.ghe.com", "https://acme.ghe.com");
    assert_eq!(
        reported,
        [
            ("acme", api_url, web_url, SECRET),
            ("ghes", "https://ghe.example.com/api/v3", "https://ghe.example.com", "s3cret"),
            ("github", api_url, web_url, "of-github"),
        ]
    );
    let planned = config.planner_settings().credentials;
    let hosts: Vec<_> = config.credentials.iter().map(|it| it.host().as_str()).collect();
    assert_eq!(hosts, ["acme.ghe.com", "ghe.example.com", "acme.ghe.com"]);
    let serves = |target: &str| plan::credential_for_name(&planned, &target.parse().unwrap());
    assert_eq!(serves("repo:acme/app"), Some(0));
    assert_eq!(serves("enterprise:corp"), Some(1));
    assert_eq!(serves("org:other"), Some(2));
}

#[test]
fn credentials_with_the_same_entry_share_a_target() {
    let file = "[[credentials]]\nname = \"one\"\ntargets = [\"acme\", \"acme/app\"]\ntoken = \"a\"\n\
                [[credentials]]\nname = \"two\"\ntargets = [\"ACME\"]\ntoken = \"b\"\n";
    let config = load(file, &[("GITHUB_TOKEN", "of-github")]).unwrap();
    assert_eq!(config.warnings(), [""; 0]);
    let planned = config.planner_settings().credentials;
    let serving = |target: &str| -> Vec<usize> {
        plan::credentials_for_name(&planned, &target.parse().unwrap()).collect()
    };
    assert_eq!(serving("org:acme"), [0, 1]);
    assert_eq!(serving("repo:acme/app"), [0]);
    assert_eq!(serving("repo:acme/lib"), [2]);
}

#[test]
fn a_github_app_replaces_a_token() {
    let file = format!(
        "github = {{ app_id = \"Iv23li\", app_private_key_file = {APP_KEY_FILE:?} }}\n\
         [[credentials]]\nname = \"acme\"\ntargets = [\"acme\"]\napp_id = \"7\"\n\
         app_private_key_file = {APP_KEY_FILE:?}\n"
    );
    let written = TempFile::new(&file);
    let config = Config::load_to_serve(Some(&written.path()), &no_variables).unwrap();
    let ids: Vec<&str> = config
        .credentials
        .iter()
        .map(|credential| match &credential.identity {
            Identity::App { id, .. } => id.as_str(),
            Identity::Token(_) => "a token",
        })
        .collect();
    assert_eq!(ids, ["7", "Iv23li"]);

    let file = "[github]\ntoken = \"ghp_no\"\napp_id = \"7\"\napp_private_key = \"ghp_no\"\n\
                [[credentials]]\nname = \"acme\"\ntargets = [\"acme\"]\napp_id = \"a b\"\n";
    let reported = errors(file, &[]);
    let joined = reported.join("\n");
    for text in [
        "3: github.app_id: a token is set as well",
        "4: github.app_private_key: write the private key as GitHub made it",
        "8: credentials[0].app_id: write the App's id or client id",
    ] {
        assert!(reported.iter().any(|line| line.starts_with(text)), "{text}\n{joined}");
    }
    assert!(!joined.contains("ghp_no"), "{joined}");
}

#[test]
fn a_key_without_line_breaks_is_refused_with_a_hint() {
    let key = APP_KEY.trim();
    for (key, hint) in [
        (key.replace('\n', "\\n"), "its line breaks are written as \\n"),
        (key.replace('\n', " "), "its line breaks are missing"),
        (key.replace('\n', ""), "its line breaks are missing"),
        (key.replace("RSA PRIVATE", "PUBLIC"), "this is not the private key"),
        (ca_pem(), "this is not the private key"),
    ] {
        let env = [("GITHUB_APP_ID", "7"), ("GITHUB_APP_PRIVATE_KEY", key.as_str())];
        let reported = errors("", &env);
        assert!(reported.iter().any(|line| line.contains(hint)), "{hint}: {reported:?}");
        assert!(!reported.join("").contains("MII"), "{reported:?}");
    }
}

#[test]
fn errors_in_credentials_are_reported_with_the_others() {
    let file = r#"[[credentials]]
targets = ["acme", "*"]
token = "ghp_do_not_print_me"
token_file = "/dev/null"
[[credentials]]
name = "github"
tokn = "ghp_do_not_print_me"
api_url = "https://github.com"
[[credentials]]
name = "a"
token = "x"
targets = [1]
[[credentials]]
name = "a"
token = "x"
targets = ["acme"]
"#;
    let reported = errors(file, &[]);
    assert_errors(
        &reported,
        &[
            "1: credentials[0].name: each credential needs its own name",
            "2: credentials[0].targets[1]: write OWNER/NAME",
            "4: credentials[0].token_file: the secret is also set directly",
            "6: credentials[1].name: this name is reserved for [github] itself",
            "7: credentials[1].tokn: unknown setting: did you mean `token`?",
            "5: credentials[1].token: no token: set token or token_file",
            "8: credentials[1].api_url: write https://api.github.com",
            "5: credentials[1].targets: this credential serves no target",
            "12: credentials[2].targets[0]: write a string in quotes",
            "14: credentials[3].name: another credential has this name",
        ],
    );
}

#[test]
fn each_webhook_needs_a_credential_with_access_to_it() {
    let secret = TempFile::new("s3cret\n");
    let credentials = CREDENTIALS.replace("FILE", secret.path().to_str().unwrap());
    let hooks = r#"runner.repositories = ["acme/app"]
        missed_webhooks.hooks = ["orgs/other/hooks/1", "repos/acme/app/hooks/2", "app/hook"]
        "#;
    let written = TempFile::new(&format!("{hooks}{credentials}"));
    let ConfigErrors(reported) =
        Config::load_to_serve(Some(&written.path()), &no_variables).unwrap_err();
    let locations: Vec<_> =
        reported.iter().map(|it| it.location.rsplit(": ").next().unwrap()).collect();
    assert_eq!(locations, ["missed_webhooks.hooks[0]", "missed_webhooks.hooks[2]"], "{reported:?}");
    assert!(reported[0].problem.contains("[[credentials]]"), "{reported:?}");
    assert!(reported[1].problem.contains("GitHub App"), "{reported:?}");
}

#[test]
fn without_a_token_of_github_credentials_must_cover_every_pool() {
    let secret = TempFile::new("s3cret\n");
    let credentials = CREDENTIALS.replace("FILE", secret.path().to_str().unwrap());
    let reported = |pools: &str| {
        let written = TempFile::new(&format!("{pools}{credentials}"));
        match Config::load_to_serve(Some(&written.path()), &no_variables) {
            Ok(_) => Vec::new(),
            Err(ConfigErrors(reported)) => reported,
        }
    };
    for covered in [
        "runner.repositories = [\"acme/app\", \"Acme/*\"]",
        "runner = { scope = \"organization\", repositories = [\"acme/app\"] }",
        "runner.scope = \"enterprise\"",
    ] {
        assert_eq!(reported(covered), [], "{covered}");
    }
    for (pools, location) in [
        ("", "pools[0].repositories"),
        ("runner.scope = \"organization\"\n", "pools[0].repositories"),
        ("runner.repositories = [\"acme/app\", \"other/app\"]\n", ":1: runner.repositories"),
    ] {
        let reported = reported(pools);
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(reported[0].location.ends_with(location), "{reported:?}");
        assert!(reported[0].problem.starts_with("no credential covers"), "{reported:?}");
    }
}
