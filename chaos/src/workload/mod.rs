//! The workload: workers that send a random mix of all kinds of calls to random replicas.

mod call;
mod decisions;
mod final_reads;
mod lists;
mod probe;
mod sessions;
mod setup;
mod world;
mod writes;

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;

pub use self::{
    call::{Client, Kind, operation_of},
    final_reads::read_final_state,
    setup::{PlatformAdmin, create},
    world::{PASSWORD, World},
    writes::mask,
};

/// Pause of a worker between two calls.
const PAUSE: Duration = Duration::from_millis(2);

impl Client {
    /// Sends random calls until the workload ends.
    pub async fn work(mut self) {
        while !self.world.ends() {
            match self.kind() {
                Kind::Writer => self.writer_step().await,
                Kind::Reader => self.reader_step().await,
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends one random call of any kind.
    async fn writer_step(&mut self) {
        let tenant = self.rng.usize(..self.world.tenants.len());
        match self.rng.u16(..1000) {
            0..300 => self.check(tenant).await,
            300..350 => self.batch_check(tenant).await,
            350..400 => self.list_permissions(tenant).await,
            400..430 => self.list_subjects(tenant).await,
            430..435 => self.check_foreign(tenant).await,
            435..445 => self.list_events(tenant).await,
            445..455 => self.list_users(tenant).await,
            455..655 => self.session_step().await,
            655..850 => self.assignment_step(tenant).await,
            850..900 => self.role_step(tenant).await,
            900..935 => self.user_state_step(tenant).await,
            935..945 => self.tenant_state_step().await,
            // Users are created by the administrator (`false`), or register themselves (`true`).
            945..948 => _ = self.create_user(tenant, false).await,
            948..950 => _ = self.create_user(tenant, true).await,
            950..975 => self.login_step(tenant).await,
            _ => self.check(self.world.probe_tenant()).await,
        }
    }

    /// Asks for a decision that a cache may answer.
    async fn reader_step(&mut self) {
        let tenant = self.rng.usize(..self.world.tenants.len());
        let session = self.world.clone().random_session(&mut self.rng);
        match (self.rng.u8(..10), session) {
            (0..=2, Some(session)) => self.check_self(&session).await,
            (3..=4, Some(session)) => self.check_access_token(&session).await,
            (5, _) => self.list_permissions(tenant).await,
            (6, _) => self.batch_check(tenant).await,
            _ => self.check(tenant).await,
        }
    }

    async fn session_step(&mut self) {
        let Some(session) = self.world.clone().random_session(&mut self.rng) else { return };
        match self.rng.u8(..100) {
            0..30 => self.check_self(&session).await,
            30..60 => self.check_access_token(&session).await,
            60..75 => self.introspect(&session).await,
            // A refresh uses the newest token, or reuses the token before it (`true`).
            75..90 => self.refresh(&session, false).await,
            90..92 => self.refresh(&session, true).await,
            92..95 => self.logout(&session).await,
            95..98 => self.revoke_session(&session).await,
            _ => self.revoke_all_sessions(&session.user).await,
        }
    }

    async fn assignment_step(&mut self, tenant: usize) {
        let world = self.world.clone();
        let Some(user) = world.random_user(&mut self.rng, tenant) else { return };
        let roles = &world.tenants[tenant].roles;
        let role = roles[self.rng.usize(..roles.len())];
        let assign = self.rng.bool();
        self.change_assignment(&user, role, assign).await;
    }

    async fn role_step(&mut self, tenant: usize) {
        let world = self.world.clone();
        let roles = &world.tenants[tenant].roles;
        let role = roles[self.rng.usize(..roles.len())];
        self.update_role(role, None).await;
    }

    /// Enables users more often than it disables them, so that most users can sign in.
    async fn user_state_step(&mut self, tenant: usize) {
        let world = self.world.clone();
        let Some(user) = world.random_user(&mut self.rng, tenant) else { return };
        let enable = self.rng.u8(..3) > 0;
        self.change_user_state(&user, enable).await;
    }

    /// If a tenant is suspended, reactivates it in one of three calls. Otherwise suspends a random
    /// tenant in one of six calls.
    async fn tenant_state_step(&mut self) {
        let world = self.world.clone();
        let is_suspended =
            |tenant: &usize| world.tenants[*tenant].is_suspended.load(Ordering::Relaxed);
        match (0..world.probe_tenant()).find(is_suspended) {
            Some(tenant) if self.rng.u8(..3) == 0 => self.change_tenant_state(tenant, true).await,
            None if self.rng.u8(..6) == 0 => {
                let tenant = self.rng.usize(..world.probe_tenant());
                self.change_tenant_state(tenant, false).await;
            }
            _ => {}
        }
    }

    async fn login_step(&mut self, tenant: usize) {
        if let Some(user) = self.world.clone().random_user(&mut self.rng, tenant) {
            self.login(&user).await;
        }
    }
}
