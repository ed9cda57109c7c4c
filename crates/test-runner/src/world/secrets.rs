//! `secrets::*` offline, where nobody has the key: what a test says, or a placeholder.

use picloud_shared::sdk::{
    SdkCallCx, SdkError, SdkErrorCode, SdkResult, SecretValue, SecretsService,
};

use super::Part;

impl SecretsService for Part {
    fn get(&self, cx: &SdkCallCx, name: &str) -> SdkResult<SecretValue> {
        let world = self.world()?;
        if let Some(value) = world.data.lock().secrets.get(name) {
            return Ok(SecretValue(value.as_str().into()));
        }
        if cx.app.spec.secrets.contains_key(name) {
            return Ok(SecretValue(format!("test-{name}").into()));
        }
        Err(SdkError::new(
            SdkErrorCode::NotFound,
            format!("the app has no secret `{}`", name.escape_debug()),
        ))
    }
}
