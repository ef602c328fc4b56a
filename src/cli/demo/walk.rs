//! Steps of the demo; each checks its result.

use std::{ops::ControlFlow, time::Duration};

use anyhow::ensure;
use indicatif::HumanCount;
use tokio::{sync::mpsc, time::Instant};

use super::{
    flag,
    requests::{call, creation, credentials, open_stream, said},
    sample::{self, ExpectedMembers, LEAVES, STAYS},
    service::DemoService,
};
use crate::{
    cli::{
        remote::{self, Client, Server},
        say,
        send::{
            BACKOFF,
            options::TransferOptions,
            outcome::SendEvent,
            report::{Progress, SendTally},
            transfer,
            window::{InputRow, SettledRow},
        },
        validate,
    },
    pb::{
        self, destination::Config, identifier_record::Operation,
        validate_credentials_request::Target,
    },
    sandbox::fixtures,
};

/// Failed records that are shown in full.
const FAILURES_SHOWN: usize = 4;
/// Everything is on this machine: nothing takes so long.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// The journey, from the form to the changed flag.
pub(super) async fn walk(demo: &DemoService) -> anyhow::Result<()> {
    let started = Instant::now();
    say(format_args!(
        "The service listens on {}, a sandbox LaunchDarkly on {}.",
        demo.url(),
        demo.sandbox.url()
    ));
    let mut walk = Walk {
        demo,
        client: remote::connect(&Server::at(&demo.url()).map_err(anyhow::Error::msg)?)
            .await
            .map_err(said)?,
    };
    walk.describe_actions().await?;
    walk.validate_credentials().await?;
    walk.create_destination().await?;
    walk.send_members().await?;
    walk.send_one_leaving().await?;
    say(format_args!(
        "\nAll of it is as it should be. ({:.1} s)",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

struct Walk<'a> {
    demo: &'a DemoService,
    client: Client,
}

impl Walk<'_> {
    async fn describe_actions(&mut self) -> anyhow::Result<()> {
        title("DescribeActions: what the forms ask for");
        let request = call(pb::DescribeActionsRequest::default());
        let answer = self
            .client
            .describe_actions(request)
            .await
            .map_err(said)?
            .into_inner();
        ensure!(
            !answer.actions.is_empty(),
            "the service describes no action"
        );
        for action in answer.actions {
            say(format_args!("  {} ({})", action.display_name, action.id));
            for (when, fields) in [
                ("destination", &action.destination_fields),
                ("mapping", &action.mapping_fields),
                ("activation", &action.activation_fields),
            ] {
                let names: Vec<_> = fields
                    .iter()
                    .map(|field| field.display_name.as_str())
                    .collect();
                say(format_args!("    {when:<12} {}", names.join(", ")));
            }
        }
        say(format_args!(
            "  The demo calls as the integration zeotap. With the --integration-manifest of another one,\n  \
             serve calls as that one, and members may be accounts as well as users."
        ));
        Ok(())
    }

    async fn validate_credentials(&mut self) -> anyhow::Result<()> {
        title("ValidateCredentials: a token that may only read");
        ensure!(
            !self.is_valid(fixtures::READER_TOKEN).await?,
            "a reader's token was called valid"
        );
        title("ValidateCredentials: a token that may write");
        ensure!(
            self.is_valid(fixtures::WRITER_TOKEN).await?,
            "a writer's token was called invalid"
        );
        Ok(())
    }

    async fn is_valid(&mut self, token: &str) -> anyhow::Result<bool> {
        let target = Some(Target::LaunchDarkly(credentials(token)));
        let request = call(pb::ValidateCredentialsRequest { target });
        let answer = self
            .client
            .validate_credentials(request)
            .await
            .map_err(said)?
            .into_inner();
        for check in &answer.checks {
            say(format_args!("  {}", validate::line(check)));
        }
        Ok(answer.valid)
    }

    async fn create_destination(&mut self) -> anyhow::Result<()> {
        title("CreateDestination");
        let made = self
            .client
            .create_destination(call(creation()))
            .await
            .map_err(said)?
            .into_inner();
        let Some(Config::LaunchDarkly(config)) = made.config else {
            anyhow::bail!("the destination came back without its settings");
        };
        ensure!(config.access_token.is_empty(), "the access token came back");
        say(format_args!(
            "  {} with the token that ends in {}",
            made.name, config.obfuscated_access_token
        ));
        Ok(())
    }

    async fn send_members(&mut self) -> anyhow::Result<()> {
        let rows = sample::rows();
        let expected = ExpectedMembers::of(&rows);
        title(format_args!(
            "SendIdentifiers: {} rows of {}",
            count(rows.len()),
            sample::PATH
        ));
        self.expect_flag("before", STAYS, false).await?;
        let started = Instant::now();
        let before = self.demo.sandbox.sandbox.totals();
        let sent = self.send(rows, Some(sample::bytes())).await?;
        let after = self.demo.sandbox.sandbox.totals();
        say(format_args!(
            "  {}",
            sent.tally.to_string().replace('\n', "\n  ")
        ));
        for failure in &sent.failures {
            say(format_args!("    e.g. {failure}"));
        }
        say(format_args!(
            "  {} members in {} calls to LaunchDarkly, {:.1} s",
            HumanCount(after.members - before.members),
            HumanCount(after.applied - before.applied),
            started.elapsed().as_secs_f64()
        ));
        self.expect_flag("after", STAYS, true).await?;
        self.expect_flag("after joining and leaving", LEAVES, false)
            .await?;
        ensure!(
            (sent.tally.delivered, sent.tally.failures())
                == (expected.deliverable, expected.unusable),
            "of the sample's rows {} can be delivered and {} cannot",
            expected.deliverable,
            expected.unusable
        );
        let members = self
            .demo
            .sandbox
            .sandbox
            .members(fixtures::CLIENT_SIDE_ID, fixtures::SEGMENT);
        ensure!(
            members == expected.members,
            "the segment's members are not those of the sample"
        );
        say(format_args!(
            "  the segment {} has {} members, exactly those of the sample",
            fixtures::SEGMENT,
            count(members.len())
        ));
        Ok(())
    }

    async fn send_one_leaving(&mut self) -> anyhow::Result<()> {
        title(format_args!("SendIdentifiers: {STAYS} leaves the journey"));
        let record = pb::IdentifierRecord {
            identifiers: [("user_id".to_owned(), STAYS.to_owned())].into(),
            operation: Operation::Remove.into(),
        };
        let row = InputRow {
            line: 1,
            end: 0,
            record,
        };
        let started = Instant::now();
        let sent = self.send(vec![row], None).await?;
        ensure!(sent.tally.delivered == 1, "the removal was not delivered");
        say(format_args!(
            "  acknowledged after {} ms",
            started.elapsed().as_millis()
        ));
        self.expect_flag("now", STAYS, false).await
    }

    async fn send(&self, rows: Vec<InputRow>, bytes: Option<u64>) -> anyhow::Result<Sent> {
        let settings = TransferOptions {
            server: Server::at(&self.demo.url()).map_err(anyhow::Error::msg)?,
            open: open_stream(),
            give_up_after: GIVE_UP_AFTER,
            backoff: BACKOFF,
        };
        let (sender, receiver) = mpsc::channel(rows.len().max(1));
        for row in rows {
            sender
                .try_send(row)
                .expect("the channel has room for every row");
        }
        drop(sender);
        let mut progress = Progress::new(bytes);
        let mut sent = Sent::default();
        // A signal ends the whole demo.
        let stop = std::future::pending();
        let ended = transfer::run(&settings, receiver, stop, |event| {
            sent.handle(&event);
            progress.show(&sent.tally);
            progress.print(&event);
            ControlFlow::Continue(())
        });
        let ended = ended.await;
        progress.end();
        ended.map_err(|unfinished| unfinished.error)?;
        Ok(sent)
    }

    async fn expect_flag(&self, when: &str, key: &str, expected: bool) -> anyhow::Result<()> {
        let is_on = flag::is_on(&self.demo.sandbox.url(), key).await?;
        say(format_args!(
            "  {when}: the flag {} is {is_on} for {key}",
            fixtures::FLAG
        ));
        ensure!(is_on == expected, "the flag should be {expected}");
        Ok(())
    }
}

/// The results of some records.
#[derive(Debug, Default)]
struct Sent {
    tally: SendTally,
    /// The first failures, as lines for people.
    failures: Vec<String>,
}

impl Sent {
    fn handle(&mut self, event: &SendEvent<'_>) {
        let SendEvent::Settled(settled) = event else {
            return;
        };
        for record in *settled {
            self.tally.count(record);
            self.failures
                .extend(failure(record).filter(|_| self.failures.len() < FAILURES_SHOWN));
        }
    }
}

fn failure(record: &SettledRow) -> Option<String> {
    let rejection = record.verdict.as_ref().err()?;
    Some(format!(
        "line {}: {} ({})",
        record.line, rejection.message, rejection.reason
    ))
}

fn title(text: impl std::fmt::Display) {
    say(format_args!("\n{text}"));
}

fn count(number: usize) -> HumanCount {
    HumanCount(u64::try_from(number).unwrap_or(u64::MAX))
}
