//! A page of runbooks, walked: its commands are run as they stand there, in their order, and none is left out.

use crate::{
    Output, root,
    team::{Person, Team},
};
use anyhow::{Context as _, bail, ensure};
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    time::Duration,
};

/// One section on its way.
pub struct Walk {
    title: String,
    /// Who types, and what.
    lines: VecDeque<(String, String)>,
    /// Each person's last code.
    used: BTreeMap<String, String>,
}

impl Walk {
    /// The section of docs/RUNBOOKS.md with this title.
    pub fn of(title: &str) -> anyhow::Result<Self> {
        let page = fs::read_to_string(root().join("docs/RUNBOOKS.md"))?;
        let head = format!("## {title}");
        let section = page.split_once(&head).context("the section")?.1;
        let section = section.split("\n## ").next().unwrap_or_default();
        let typed = section.lines().filter_map(|line| {
            let (who, what) = line.trim_start().split_once("$ countersign")?;
            let name = who.bytes().all(|b| b.is_ascii_lowercase());
            name.then(|| (who.to_owned(), format!("countersign{what}")))
        });
        let lines: VecDeque<_> = typed.collect();
        ensure!(!lines.is_empty(), "{title}: no command stands there");
        Ok(Self {
            title: title.to_owned(),
            lines,
            used: BTreeMap::new(),
        })
    }

    /// The next line of the page, which must be this one.
    fn next(&mut self, line: &str) -> anyhow::Result<(String, String)> {
        let Some((who, what)) = self.lines.pop_front() else {
            bail!("{}: the page ends before {line}", self.title);
        };
        ensure!(
            format!("{who}$ {what}") == line,
            "{}: the page says `{who}$ {what}`, the test `{line}`",
            self.title
        );
        Ok((who, what))
    }

    /// Runs the next line, with something in place of what stands in capitals, and its code where it wants one.
    pub async fn run<R>(
        &mut self,
        team: &Team<R>,
        person: &Person,
        line: &str,
        put: &[(&str, &str)],
    ) -> anyhow::Result<Output> {
        let (who, mut what) = self.next(line)?;
        ensure!(who == person.name, "{line}: {} types it", person.name);
        for (name, value) in put {
            ensure!(what.contains(name), "{line}: no {name}");
            what = what.replace(name, value);
        }
        self.coded(team, person, &what).await
    }

    /// A line that is none of the page's.
    pub async fn beside<R>(
        &mut self,
        team: &Team<R>,
        person: &Person,
        line: &str,
    ) -> anyhow::Result<Output> {
        self.coded(team, person, line).await
    }

    /// Each code is good once, and a wrong one is charged: none is tried twice.
    async fn coded<R>(
        &mut self,
        team: &Team<R>,
        person: &Person,
        line: &str,
    ) -> anyhow::Result<Output> {
        let mut out = team.type_in(person, line, &[]).await?;
        for _ in 0..100 {
            let wants = ["--totp", "wrong or was used", "second factor"];
            if out.success() || !wants.iter().any(|w| out.stderr.contains(w)) {
                break;
            }
            let code = team.code(person).await?;
            if self.used.get(&person.name) == Some(&code) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
            let env = [("COUNTERSIGN_TOTP", code.as_str())];
            out = team.type_in(person, line, &env).await?;
            self.used.insert(person.name.clone(), code);
        }
        Ok(out)
    }

    /// The next line was typed while the team was set up: one of its lines has all the words of this one.
    pub fn was_typed(&mut self, line: &str, typed: &[String]) -> anyhow::Result<()> {
        let (_, what) = self.next(line)?;
        let words: Vec<_> = what.split_whitespace().skip(1).collect();
        let words: Vec<_> = words.iter().map(|w| w.trim_matches('\'')).collect();
        let fixed = |w: &&&str| !w.bytes().all(|b| b.is_ascii_uppercase());
        let has = |typed: &String| {
            let mut of = typed.split_whitespace();
            words.iter().filter(fixed).all(|w| of.any(|t| t == *w))
        };
        ensure!(typed.iter().any(has), "nobody typed {what}: {typed:#?}");
        Ok(())
    }

    /// The next line is what the stand does with the very same words: it makes and serves a broker.
    pub fn by_the_stand(&mut self, line: &str) -> anyhow::Result<()> {
        self.next(line).map(drop)
    }

    /// Nothing of the page is left.
    pub fn ends(self) -> anyhow::Result<()> {
        ensure!(
            self.lines.is_empty(),
            "{}: not walked: {:#?}",
            self.title,
            self.lines
        );
        Ok(())
    }
}
