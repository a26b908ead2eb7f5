use super::*;

#[test]
fn the_environment_alone_makes_one_pool() {
    let env = |name: &str| (name == "GITHUB_TOKEN").then(|| "t0ken".to_owned());
    let config = Config::load_to_serve(None, &env).unwrap();
    let names: Vec<_> = config.pools.iter().map(|pool| &pool.name).collect();
    assert_eq!(names, ["default"]);
    println!("{config:#?}");
}
#[test]
fn schema() {
    println!("{:#}", Config::schema());
}
