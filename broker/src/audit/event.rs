//! Everything that can be recorded. A closed list of typed facts: no secret, no raw header, no free
//! text from outside fits in (attack 41).

use super::reason::{
    AnswerRefusal, CallerRefusal, DenyCause, FreezeCause, RefusalReason, WitnessFinding,
};
use proto::{
    answer::{Decision, Factor},
    api::{Mode, ProofOutcome, Rotation, TokenEnd},
    digest::Digest,
    ids::{
        ClientKeyId, DeviceId, GroupName, IntentId, PersonId, RegistryId, RequestId, VersionText,
    },
    intent::Names,
    log::receipt::{LEAF_VERSION, PublishedItem},
    request::RequestDigest,
    text,
    time::UnixTime,
};
use serde::{Deserialize, Serialize, Serializer};

/// Longest text that a leaf keeps, in bytes; longer than any registry, package and version together.
pub const TEXT_MAX: usize = 512;

/// What happened. Renaming a variant or a field changes what old receipts mean: add, never alter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The daemon started.
    BrokerStarted,
    /// A backup is being taken.
    BackupTaken {
        /// By whom; nobody: by the broker itself.
        by: Option<PersonId>,
    },
    /// The broker could not make a backup by itself.
    BackupFailed,
    /// This database was restored from a backup: what was recorded after it is lost.
    BrokerRestored {
        /// When the backup was taken.
        taken: UnixTime,
        /// Entries of the log that came back.
        entries: u64,
    },
    /// The log is shorter than it was, or another: somebody put an older database here.
    RolledBack {
        /// Entries that it was known to have.
        known: u64,
    },
    /// An admin agreed to go on with an older database.
    RestoredAgreed {
        /// Who.
        by: PersonId,
        /// With which device.
        device: DeviceId,
        /// Entries of the log that this device saw before, and that are lost.
        lost: u64,
    },
    /// Enough admins agreed: approvals count again.
    RestoredAccepted {
        /// Who.
        by: Vec<PersonId>,
    },
    /// The configuration names a witness of the log that it did not name before.
    WitnessNamed {
        /// Its vkey.
        #[serde(serialize_with = "plain")]
        witness: String,
    },
    /// The configuration does not name a witness any more.
    WitnessDropped {
        /// Its vkey.
        #[serde(serialize_with = "plain")]
        witness: String,
    },
    /// A witness does not cosign: the log does not continue what it has seen.
    WitnessRefused {
        /// Its vkey.
        #[serde(serialize_with = "plain")]
        witness: String,
        /// Entries of the log that it was shown.
        entries: u64,
        /// Entries that it has seen.
        seen: u64,
        /// What is wrong.
        finding: WitnessFinding,
    },
    /// A witness that refused the log cosigns it again.
    WitnessAgreed {
        /// Its vkey.
        #[serde(serialize_with = "plain")]
        witness: String,
    },
    /// The vault was sealed.
    Sealed,
    /// The vault was unsealed.
    Unsealed,
    /// Somebody tried to unseal the vault and failed.
    UnsealFailed,
    /// A share was handed in that is this admin's; while sealed, nobody can tell whether he did it.
    ShareGiven {
        /// Whose share.
        person: PersonId,
        /// By which device.
        device: DeviceId,
    },
    /// Something was handed in that is not this admin's share.
    ShareRefused {
        /// In whose name.
        person: PersonId,
    },
    /// An admin registered the key that shares are encrypted to.
    ShareKeySet {
        /// Who.
        person: PersonId,
        /// With which device.
        device: DeviceId,
    },
    /// Somebody asked that something else opens the vault.
    UnsealMethodAsked {
        /// Who.
        by: PersonId,
        /// What: `passphrase`, `identity`, `shares 2 alice bob carol`.
        #[serde(serialize_with = "plain")]
        to: String,
    },
    /// A person confirmed it.
    UnsealMethodConfirmed {
        /// Who.
        by: PersonId,
    },
    /// Everybody confirmed who must.
    UnsealMethodAgreed {
        /// Who asked.
        by: PersonId,
        /// Who confirmed.
        confirmed: Vec<PersonId>,
        /// What opens the vault from the next event on.
        #[serde(serialize_with = "plain")]
        to: String,
    },
    /// It was taken back.
    UnsealMethodCancelled {
        /// By whom.
        by: PersonId,
    },
    /// It was agreed to, and came to nothing: the key file, or the people, were others by then.
    UnsealMethodDropped,
    /// Something else opens the vault now, and what opened it before does not.
    UnsealMethodChanged {
        /// What.
        #[serde(serialize_with = "plain")]
        to: String,
    },
    /// The vault gets a fresh data key.
    RekeyBegun {
        /// By whom.
        by: PersonId,
        /// The fresh key's generation.
        generation: u32,
    },
    /// It is in use; the old one stays until everything is written anew.
    RekeyInUse {
        /// The fresh key's generation.
        generation: u32,
    },
    /// Nothing is believed any more that the old key authenticated.
    RekeyRetired {
        /// The old key's generation.
        generation: u32,
    },
    /// The old key is gone.
    RekeyDone {
        /// The fresh key's generation.
        generation: u32,
    },
    /// An admin asked for what another one must agree to, or the broker read a policy that allows more.
    ActAsked {
        /// Names it.
        id: String,
        /// Who; nobody for a policy.
        by: Option<PersonId>,
        /// What: `remove bob`, `rotate token npm:@acme/*`, `policy sha256:…`.
        #[serde(serialize_with = "plain")]
        what: String,
    },
    /// Another admin agreed to it.
    ActConfirmed {
        /// Names it.
        id: String,
        /// Who.
        by: PersonId,
    },
    /// Somebody objected, or took it back.
    ActVetoed {
        /// Names it.
        id: String,
        /// Who.
        by: PersonId,
    },
    /// Nobody agreed in time, or who asked for it is no admin any more.
    ActExpired {
        /// Names it.
        id: String,
    },
    /// A job asked.
    RequestOpened {
        /// Which.
        request: RequestId,
        /// What people are asked to approve.
        digest: RequestDigest,
        /// `npm:@acme/left@1.4.2`, one an item.
        #[serde(serialize_with = "plain_all")]
        items: Vec<String>,
        /// The issuer's name in the configuration.
        #[serde(serialize_with = "plain")]
        issuer: String,
        /// Who asked: a verified immutable id.
        #[serde(serialize_with = "plain")]
        subject: String,
    },
    /// A verified caller's request was not taken.
    RequestRefused {
        /// Why.
        reason: RefusalReason,
    },
    /// A person's answer counts.
    AnswerAccepted {
        /// To what.
        request: RequestId,
        /// What the person signed for.
        digest: RequestDigest,
        /// Who.
        person: PersonId,
        /// With which device.
        device: DeviceId,
        /// By which proof.
        factor: Factor,
        /// Saying what.
        decision: Decision,
    },
    /// A person's answer does not count.
    AnswerRefused {
        /// To what.
        request: RequestId,
        /// Who.
        person: PersonId,
        /// Why.
        reason: AnswerRefusal,
    },
    /// A person announced a release.
    IntentMade {
        /// Its id.
        intent: IntentId,
        /// Who.
        person: PersonId,
        /// With which device.
        device: DeviceId,
        /// By which proof.
        factor: Factor,
        /// `npm:@acme/left@1.4.2`, one an item.
        #[serde(serialize_with = "plain_all")]
        items: Vec<String>,
        /// How much it says.
        names: Names,
        /// SHA-256 of the signed bytes.
        statement: Digest,
        /// Until when.
        expires: UnixTime,
    },
    /// A person's announcement was not taken.
    IntentRefused {
        /// Who.
        person: PersonId,
        /// Why.
        reason: AnswerRefusal,
    },
    /// A change of a person's own devices, factors, notifications or announcements was not proved.
    ChangeRefused {
        /// Who.
        person: PersonId,
        /// With which device.
        device: DeviceId,
        /// Why.
        reason: AnswerRefusal,
    },
    /// An announcement is over before its time.
    IntentWithdrawn {
        /// Which.
        intent: IntentId,
        /// By whom: who took it back, or denied what it had approved.
        by: PersonId,
    },
    /// A request is what was announced.
    RequestIntended {
        /// Which.
        request: RequestId,
        /// The announcement.
        intent: IntentId,
        /// Whose.
        person: PersonId,
    },
    /// An announcement counted as an approval; it serves no other request.
    IntentSpent {
        /// Which.
        intent: IntentId,
        /// For which request.
        request: RequestId,
    },
    /// Enough people approved.
    RequestApproved {
        /// Which.
        request: RequestId,
        /// What they approved.
        digest: RequestDigest,
    },
    /// It will not be published.
    RequestDenied {
        /// Which.
        request: RequestId,
        /// Who said no, if a person did.
        person: Option<PersonId>,
        /// Why.
        cause: DenyCause,
    },
    /// Nobody answered, or the job did not come, in time.
    RequestExpired {
        /// Which.
        request: RequestId,
    },
    /// The job took it back.
    RequestCancelled {
        /// Which.
        request: RequestId,
    },
    /// A job handed a file over; it waits, encrypted, until people have approved.
    Deposited {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
        /// Its digest.
        digest: Digest,
    },
    /// The job fetched what the permit gives; the permit is burnt.
    Collected {
        /// Which.
        request: RequestId,
        /// What was given.
        mode: Mode,
    },
    /// A token of the registry's own left the broker, narrowed to one project until a moment.
    Minted {
        /// Of which request.
        request: RequestId,
        /// `pypi:acme-demo`
        #[serde(serialize_with = "plain")]
        package: String,
        /// Until when the registry takes it.
        until: UnixTime,
    },
    /// Bytes are about to leave for the registry.
    Releasing {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
        /// Which try, from 1.
        attempt: u32,
    },
    /// The registry's answer was unclear; it is being read back.
    Settling {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
    },
    /// The registry keeps a file's bytes aside, unpublished.
    Staged {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
        /// The registry's name for it.
        #[serde(serialize_with = "plain")]
        stage: String,
    },
    /// A stage holds other bytes, or has another name, version or tag, than what was approved. It was not
    /// approved at the registry.
    StageDiffers {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
        /// The registry's name for it.
        #[serde(serialize_with = "plain")]
        stage: String,
    },
    /// The registry has a stage of a gated package that this broker did not make.
    StageForeign {
        /// Where.
        registry: RegistryId,
        /// The registry's name for it.
        #[serde(serialize_with = "plain")]
        stage: String,
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
    },
    /// The registry wants its own second factor before it publishes a file.
    FactorAsked {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
    },
    /// The registry shows the approved bytes, but the approved tag points elsewhere.
    TagElsewhere {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
    },
    /// The registry shows a file's approved bytes.
    Published {
        /// Of which request.
        request: RequestId,
        /// What was approved.
        digest: RequestDigest,
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
        /// Which of the item's files, from 0.
        file: u32,
        /// What the registry showed.
        read_back: Digest,
    },
    /// The registry shows all of a request's approved bytes: its last leaf, which receipts prove.
    RequestPublished {
        /// Which.
        request: RequestId,
        /// What was approved.
        digest: RequestDigest,
        /// What the registry showed, in the request's order.
        items: Vec<PublishedItem>,
    },
    /// The registry shows other bytes than the approved ones.
    Conflict {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
        /// What it shows.
        read_back: Digest,
    },
    /// The registry took a file, or may have taken it, and did not show it in its request's time.
    OutcomeUnclear {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
    },
    /// A published file was downloaded: the approved bytes.
    ArtifactFetched {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
        /// Its digest.
        digest: Digest,
    },
    /// A published file was not downloaded: it lies at an origin that the configuration does not name.
    ArtifactElsewhere {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
    },
    /// A published file could not be downloaded in time.
    ArtifactOverdue {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
    },
    /// A published file was downloaded twice: other bytes than the approved ones.
    ArtifactDiffers {
        /// Of which request.
        request: RequestId,
        /// Which item, from 0.
        item: u32,
        /// Which of its files, from 0.
        file: u32,
        /// What they are; absent when there were more of them than approved.
        fetched: Option<Digest>,
    },
    /// The watch looked at a package for the first time.
    PackageWatched {
        /// `npm:@acme/left`
        #[serde(serialize_with = "plain")]
        package: String,
        /// Versions that were there before.
        before: u64,
    },
    /// A registry shows a version, or a file of one, that the broker did not publish.
    VersionUnknown {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
        /// The file; empty where a version has one.
        #[serde(serialize_with = "plain")]
        file: String,
        /// Its digest, where the registry shows it.
        shown: Option<Digest>,
    },
    /// A registry shows another digest than before for a file.
    VersionChanged {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
        /// The file; empty where a version has one.
        #[serde(serialize_with = "plain")]
        file: String,
        /// What it showed before.
        known: Digest,
        /// What it shows now.
        shown: Option<Digest>,
    },
    /// A registry does not show a version any more.
    VersionGone {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
    },
    /// A version was yanked.
    VersionWithdrawn {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
    },
    /// The tag `latest` moved, and not by a publish of this broker.
    LatestMoved {
        /// `npm:@acme/left`
        #[serde(serialize_with = "plain")]
        package: String,
        /// From this version.
        from: Option<VersionText>,
        /// To this version.
        to: Option<VersionText>,
    },
    /// For hours nobody could look at a package at its registry.
    WatchBlind {
        /// `npm:@acme/left`
        #[serde(serialize_with = "plain")]
        package: String,
    },
    /// The broker itself froze a package, for what the registry shows.
    FrozenByBroker {
        /// `npm:@acme/left`
        #[serde(serialize_with = "plain")]
        package: String,
        /// Why.
        cause: FreezeCause,
        /// About what: `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
    },
    /// A job was given a stored secret itself.
    Revealed {
        /// By which request.
        request: RequestId,
        /// The secret's name, as an item writes it.
        #[serde(serialize_with = "plain")]
        secret: String,
    },
    /// A registry token was stored for the first time.
    TokenStored(TokenFacts),
    /// A registry token was replaced.
    TokenRotated(TokenFacts),
    /// Admins went back to the registry token that was kept; it is a version of its own from then on.
    TokenBack {
        /// The registry.
        registry: RegistryId,
        /// What the token covers.
        #[serde(serialize_with = "plain")]
        scope: String,
        /// The new version.
        version: u64,
        /// Keyed fingerprint, 8 hex digits.
        #[serde(serialize_with = "plain")]
        fingerprint: String,
        /// The version that was kept, whose token it is.
        kept: u64,
        /// The version that was present until then.
        ended: u64,
        /// Who asked for it.
        by: PersonId,
    },
    /// What a publish showed of a token that its registry could not prove before.
    TokenTried {
        /// Of which request.
        request: RequestId,
        /// The registry.
        registry: RegistryId,
        /// What the token covers.
        #[serde(serialize_with = "plain")]
        scope: String,
        /// Which version of it.
        version: u64,
        /// What it showed.
        proof: ProofOutcome,
    },
    /// A registry token was removed.
    TokenRemoved(TokenFacts),
    /// A registry token is to be rotated: the admins are told.
    TokenAged {
        /// Of which registry.
        registry: RegistryId,
        /// What it covers.
        scope: String,
        /// Which version of it.
        version: u64,
        /// How soon.
        rotation: Rotation,
    },
    /// A rotated token was destroyed here, its time for requests on their way being over.
    TokenDestroyed(TokenEnding),
    /// A token that was destroyed here ended at its registry.
    TokenEnded(TokenEnding),
    /// An admin says that a token which was destroyed here is revoked at its registry.
    TokenRevoked {
        /// The registry.
        registry: RegistryId,
        /// What the token covered.
        #[serde(serialize_with = "plain")]
        scope: String,
        /// Which version of it.
        version: u64,
        /// Keyed fingerprint, 8 hex digits.
        #[serde(serialize_with = "plain")]
        fingerprint: String,
        /// Who says so.
        by: PersonId,
    },
    /// An admin says that a stored token is nowhere else any more.
    TokenEmptied(TokenFacts),
    /// A registry was asked about a stored token.
    TokenChecked(TokenFacts),
    /// A registry does not take a token that was to be stored: it was not.
    TokenRefused {
        /// Which registry.
        registry: RegistryId,
        /// What the token was to cover.
        #[serde(serialize_with = "plain")]
        scope: String,
        /// Who gave it.
        by: PersonId,
    },
    /// A registry token was used for a request.
    TokenUsed {
        /// For which.
        request: RequestId,
        /// Whose token.
        registry: RegistryId,
        /// What the token covers.
        #[serde(serialize_with = "plain")]
        scope: String,
        /// Which version of it.
        version: u64,
    },
    /// Somebody was invited.
    InviteMade {
        /// Who.
        person: PersonId,
        /// By whom; nobody for the first admin's invite, made on the machine itself.
        by: Option<PersonId>,
    },
    /// An invited person enrolled.
    PersonEnrolled {
        /// Who.
        person: PersonId,
        /// The first device.
        device: DeviceId,
    },
    /// A person added a device.
    DeviceAdded {
        /// Whose.
        person: PersonId,
        /// Which.
        device: DeviceId,
    },
    /// A device was removed.
    DeviceRemoved {
        /// Whose.
        person: PersonId,
        /// Which.
        device: DeviceId,
    },
    /// A person added a passkey.
    PasskeyAdded {
        /// Whose.
        person: PersonId,
        /// Its credential's id, base64url.
        #[serde(serialize_with = "plain")]
        passkey: String,
    },
    /// A person set up an authenticator app, in place of an earlier one if there was one.
    TotpSet {
        /// Whose.
        person: PersonId,
        /// With which device.
        device: DeviceId,
    },
    /// A passkey was removed.
    PasskeyRemoved {
        /// Whose.
        person: PersonId,
        /// Its credential's id, base64url.
        #[serde(serialize_with = "plain")]
        passkey: String,
    },
    /// Somebody asked that another person may enrol anew, having lost all factors.
    RecoveryAsked {
        /// Whose factors.
        person: PersonId,
        /// Who asked.
        by: PersonId,
    },
    /// A recovery was called off.
    RecoveryCancelled {
        /// Whose factors.
        person: PersonId,
        /// By whom.
        by: PersonId,
    },
    /// The invite at the end of a recovery was made.
    RecoveryInvited {
        /// Whose factors.
        person: PersonId,
        /// By whom.
        by: PersonId,
    },
    /// A person enrolled anew; all earlier devices and factors are gone.
    PersonRecovered {
        /// Who.
        person: PersonId,
        /// The new device.
        device: DeviceId,
    },
    /// A person was removed.
    PersonRemoved {
        /// Who.
        person: PersonId,
        /// By whom.
        by: PersonId,
    },
    /// A person has other groups, or another role.
    PersonChanged {
        /// Who.
        person: PersonId,
        /// All groups from then on.
        groups: Vec<GroupName>,
        /// Whether an admin from then on.
        admin: bool,
        /// By whom.
        by: PersonId,
    },
    /// A client key was registered.
    ClientKeyAdded {
        /// Its name.
        name: ClientKeyId,
        /// By whom.
        by: PersonId,
    },
    /// A client key was removed.
    ClientKeyRemoved {
        /// Its name.
        name: ClientKeyId,
        /// By whom.
        by: PersonId,
    },
    /// A package was frozen.
    Frozen {
        /// `npm:@acme/left`
        #[serde(serialize_with = "plain")]
        package: String,
        /// By whom.
        by: PersonId,
    },
    /// Admins agreed that a version is marked at its registry as one that nobody should choose, or no more.
    WithdrawalAgreed {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
        /// Whether the mark is taken away.
        undo: bool,
        /// Who asked.
        by: PersonId,
        /// Who agreed.
        confirmed: Vec<PersonId>,
    },
    /// The call leaves for the registry.
    WithdrawalSent {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
        /// Whether the mark is taken away.
        undo: bool,
        /// Which try, from 1.
        attempt: u32,
    },
    /// The registry shows it.
    WithdrawalDone {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
        /// Whether the mark was taken away.
        undo: bool,
    },
    /// An admin called it back before its call to the registry began: nothing left.
    WithdrawalCalledBack {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
        /// Whether the mark was to be taken away.
        undo: bool,
        /// Who.
        by: PersonId,
    },
    /// The registry refused it, or did not show it in time.
    WithdrawalFailed {
        /// `npm:@acme/left@1.4.2`
        #[serde(serialize_with = "plain")]
        name: String,
        /// Whether the mark was to be taken away.
        undo: bool,
    },
    /// An admin stopped everything: nothing is released, and all that was open ends.
    EverythingStopped {
        /// Who.
        by: PersonId,
    },
    /// Everything was stopped after a part of a request had left: its credential is worth nothing from here on.
    CredentialEnded {
        /// Which.
        request: RequestId,
    },
    /// Everything was stopped, and with it an invite that nobody had used.
    InviteEnded {
        /// For whom.
        person: PersonId,
    },
    /// The first of two people asked for a thaw.
    ThawAsked {
        /// `npm:@acme/left`
        #[serde(serialize_with = "plain")]
        package: String,
        /// Who.
        by: PersonId,
    },
    /// A package was thawed.
    Thawed {
        /// `npm:@acme/left`
        #[serde(serialize_with = "plain")]
        package: String,
        /// By whom.
        by: Vec<PersonId>,
    },
    /// A policy came into force.
    PolicyLoaded {
        /// SHA-256 of the document.
        digest: Digest,
    },
    /// The wall clock jumped against the monotonic one, or is behind the log: TOTP and id tokens are
    /// refused.
    ClockSuspect,
    /// The clocks agree (again).
    ClockAgrees,
    /// An admin, whose own clock agrees with it, said that the wall clock is right.
    ClockAccepted {
        /// Who.
        by: PersonId,
    },
    /// A person's TOTP tries are used up.
    TotpExhausted {
        /// Whose.
        person: PersonId,
    },
    /// People were rung for a request.
    Rung {
        /// Which.
        request: RequestId,
        /// Who.
        people: Vec<PersonId>,
    },
    /// Everybody who may deny what is approved was told, as far as their channels took it.
    VetoTold {
        /// Which.
        request: RequestId,
    },
    /// A person added a channel for notifications.
    ChannelAdded {
        /// Whose.
        person: PersonId,
        /// With which device.
        device: DeviceId,
    },
    /// A person removed one.
    ChannelRemoved {
        /// Whose.
        person: PersonId,
        /// With which device.
        device: DeviceId,
    },
    /// A person set quiet hours, or took them away.
    QuietHoursSet {
        /// Whose.
        person: PersonId,
        /// With which device.
        device: DeviceId,
        /// Whether there are any now.
        quiet: bool,
    },
    /// A channel's server says that it is no more; it was removed.
    ChannelGone {
        /// Whose.
        person: PersonId,
    },
    /// Somebody asked who could not show who he is.
    CallerRefused {
        /// Why.
        reason: CallerRefusal,
    },
}

/// Which token an event is about, and who acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// The registry.
    pub registry: RegistryId,
    /// What the token covers.
    #[serde(serialize_with = "plain")]
    pub scope: String,
    /// Which version of it, from 1.
    pub version: u64,
    /// Keyed fingerprint, 8 hex digits: tells tokens apart, gives nothing away.
    #[serde(serialize_with = "plain")]
    pub fingerprint: String,
    /// What its registry said of it, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofOutcome>,
    /// Who acted.
    pub by: PersonId,
}

/// A token that is no more here, and how it ended at its registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEnding {
    /// The registry.
    pub registry: RegistryId,
    /// What the token covered.
    #[serde(serialize_with = "plain")]
    pub scope: String,
    /// Which version of it.
    pub version: u64,
    /// Keyed fingerprint, 8 hex digits.
    #[serde(serialize_with = "plain")]
    pub fingerprint: String,
    /// How.
    pub end: TokenEnd,
}

/// A leaf as hashed and exported.
#[derive(Serialize)]
struct Leaf<'a> {
    v: u32,
    time: UnixTime,
    event: &'a Event,
}

/// An event's exact bytes in the log: one line of JSON, members in the order of their declaration,
/// the same for the same event on every machine.
pub fn leaf(event: &Event, now: UnixTime) -> Vec<u8> {
    let leaf = Leaf {
        v: LEAF_VERSION,
        time: now,
        event,
    };
    // Structs of texts and numbers have no way to fail.
    serde_json::to_vec(&leaf).unwrap_or_else(|_| unreachable!("an event is plain data"))
}

/// The last guard before the log: whatever a caller passes, a leaf holds no escape sequence and no
/// endless text.
fn plain<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(value))
}

fn plain_all<S: Serializer>(values: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|v| shown(v)))
}

fn shown(value: &str) -> String {
    let mut value = text::harmless(value);
    value.truncate(value.floor_char_boundary(TEXT_MAX));
    value
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
