//! What is said of the identity provider that people sign in by.

use clap::Args;

/// The identity provider. Without an issuer people sign in with keys alone.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sign-in by an identity provider (OpenID Connect)")]
pub struct OidcArgs {
    /// The provider's address, as its discovery document names it
    #[arg(long, env = "PICLOUD_OIDC_ISSUER", value_name = "URL")]
    pub oidc_issuer: Option<String>,
    /// As the provider knows this server
    #[arg(long, env = "PICLOUD_OIDC_CLIENT_ID", value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// What proves to the provider that it is this server; without it, PKCE alone
    #[arg(
        long,
        env = "PICLOUD_OIDC_CLIENT_SECRET",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub oidc_client_secret: Option<String>,
    /// What the button says: Sign in with NAME [default: the issuer's host]
    #[arg(long, env = "PICLOUD_OIDC_NAME", value_name = "NAME")]
    pub oidc_name: Option<String>,
    /// What is asked for beside `openid` [default: profile,email]
    #[arg(
        long,
        env = "PICLOUD_OIDC_SCOPES",
        value_delimiter = ',',
        value_name = "SCOPE"
    )]
    pub oidc_scopes: Option<Vec<String>>,
    /// The claim that says what somebody is; a.b reaches into a claim [default: groups]
    #[arg(long, env = "PICLOUD_OIDC_CLAIM", value_name = "CLAIM")]
    pub oidc_claim: Option<String>,
    /// Which of the claim's values makes somebody viewer, operator or admin; * is any
    #[arg(
        long,
        env = "PICLOUD_OIDC_ROLES",
        value_delimiter = ',',
        value_name = "ROLE=VALUE"
    )]
    pub oidc_role: Option<Vec<String>>,
    /// How long a session lasts [default: 12h]
    #[arg(long, env = "PICLOUD_OIDC_SESSION", value_name = "TIME")]
    pub oidc_session: Option<String>,
}
