//! Login: a password for a session.
//!
//! Unknown tenant, suspended tenant, unknown user, disabled user, user without
//! a password, wrong password, imported hash: one answer, at one time ([`super::Failures`]).

use super::{Auth, end_guess, failures::SignIn, invalid_credentials};
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    error::Result,
    gate::NamedTenant,
    ids::{SessionId, TenantId},
    limits::Class,
    passwords::{Outcome, Place, Presented},
    proto::v1::LoginRequest,
    sessions::{
        Lookup,
        open::{self, Opening},
    },
    tenants::{self, TenantRef},
    tokens::TokenPair,
    users::{credentials, credentials::Candidate, email},
};

/// How often a password is compared: once more where another sign-in of the
/// same user replaced an outdated hash at the same moment.
const ATTEMPTS: usize = 2;

impl Auth {
    pub(super) async fn login(
        &self,
        sign_in: &SignIn,
        named: &NamedTenant,
        origin: &Origin,
        message: LoginRequest,
    ) -> Result<TokenPair> {
        self.keyring.check_signs()?;
        let email_key = email::key(&message.email);
        let slug = &message.organization_slug;
        let by_slug = matches!(named, NamedTenant::Absent) && !slug.is_empty();
        if let Some(tenant) = self.seen.tenant(slug).filter(|_| by_slug) {
            // Who is refused for load costs Postgres nothing.
            self.hasher.room(tenant)?;
        }
        let tenant = self.tenant_to_sign_in(named, slug, &email_key).await?;
        if by_slug {
            self.seen.remember(slug, tenant.as_ref());
        }
        // From here on a tenant that does not exist is one that has no users.
        let tenant = tenant.map_or(TenantId::UNKNOWN, |tenant| tenant.id);
        sign_in.count(tenant)?;
        let mut place = self.hasher.place(tenant)?;
        self.limits.tenant(Class::SignIn, tenant).await?;
        let guess = self.limits.guess(tenant, &email_key, origin.ip).await?;
        let opened = self.open(&mut place, tenant, &email_key, &message, origin).await;
        drop(place);
        end_guess(guess, &opened).await;
        opened?.sign(self.keyring.clone()).await
    }

    async fn open(
        &self,
        place: &mut Place,
        tenant: TenantId,
        email_key: &str,
        message: &LoginRequest,
        origin: &Origin,
    ) -> Result<open::Unsigned> {
        let password = Presented::new(&message.password);
        for _ in 0..ATTEMPTS {
            let trial = Trial { password: &password, device_name: &message.device_name, origin };
            let opened = self.attempt(place, tenant, email_key, trial).await?;
            if let Some(unsigned) = opened {
                return Ok(unsigned);
            }
        }
        self.record_failure(tenant, None, origin).await?;
        Err(invalid_credentials())
    }

    /// Verifies the password and opens a session; `None` when the password was
    /// right, but what it was compared with has changed meanwhile.
    async fn attempt(
        &self,
        place: &mut Place,
        tenant: TenantId,
        email_key: &str,
        Trial { password, device_name, origin }: Trial<'_>,
    ) -> Result<Option<open::Unsigned>> {
        let candidate = credentials::candidate(&self.db, tenant, email_key).await?;
        let verified = verify(place, password, candidate.as_ref()).await?;
        let (Some(candidate), Some(verified)) = (&candidate, verified) else {
            self.record_failure(tenant, candidate.as_ref(), origin).await?;
            return Err(invalid_credentials());
        };
        let new_hash = match verified.outcome {
            Outcome::RightButOutdated => Some(place.hash(password.normalised()).await?),
            _ => None,
        };
        let session = SessionId::new();
        // The session is about to be used: keep it where all replicas look
        // first. The look-up comes before it opens, so that what ends it
        // meanwhile keeps it out.
        let lookup = self.cache.lookup(tenant, session, candidate.user).await;
        let opening = Opening {
            tenant,
            user: candidate.user,
            session,
            verified_hash: &verified.hash,
            new_hash: new_hash.as_deref(),
            device_name,
            origin,
        };
        let opened = open::open(&self.db, &self.keyring, self.lifetimes, opening).await?;
        if let (Some(unsigned), Lookup::Unknown(ticket)) = (&opened, lookup) {
            let life = unsigned.access_expires_at - unsigned.issued_at;
            self.cache.fill(ticket, life.whole_seconds()).await;
        }
        Ok(opened)
    }

    /// The tenant: the metadata's, else the body's, else the only one that has
    /// a user with this email.
    pub(super) async fn tenant_to_sign_in(
        &self,
        named: &NamedTenant,
        organization_slug: &str,
        email_key: &str,
    ) -> Result<Option<TenantRef>> {
        match named {
            NamedTenant::Known(tenant) => Ok(Some(tenant.clone())),
            NamedTenant::Unknown => Ok(None),
            NamedTenant::Absent if organization_slug.is_empty() => {
                tenants::find_by_email(&self.db, email_key).await
            }
            NamedTenant::Absent => tenants::find(&self.db, organization_slug).await,
        }
    }

    /// A failure's record stands alone, so that it does not roll back with it.
    async fn record_failure(
        &self,
        tenant: TenantId,
        candidate: Option<&Candidate>,
        origin: &Origin,
    ) -> Result<()> {
        let mut event = Event::new(EventKind::SignInFailed);
        if let Some(candidate) = candidate {
            event = event.target(candidate.user.0);
        }
        audit::record_alone(&self.db, tenant, &Actor::anonymous(origin), event).await
    }
}

/// What somebody signs in with.
#[derive(Clone, Copy)]
struct Trial<'a> {
    password: &'a Presented,
    device_name: &'a str,
    origin: &'a Origin,
}

struct Verified {
    outcome: Outcome,
    hash: String,
}

/// The hash that the password was found right by.
async fn verify(
    place: &mut Place,
    password: &Presented,
    candidate: Option<&Candidate>,
) -> Result<Option<Verified>> {
    let kept = candidate.filter(|c| c.active).and_then(|c| c.password_hash.clone());
    let outcome = place.verify(password, kept.as_deref()).await?;
    Ok(match (outcome, kept) {
        (Outcome::Right | Outcome::RightButOutdated, Some(hash)) => {
            Some(Verified { outcome, hash })
        }
        _ => None,
    })
}
