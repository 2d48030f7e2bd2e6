//! One exchange: a request that was judged, and the answer as it comes.

use crate::http::Body;
use crate::http::HttpError;
use crate::http::client::Reqwest;
use crate::http::client::absolute;
use crate::http::client::bound_headers;
use crate::http::client::http_error;
use crate::http::client::stream;

impl Reqwest {
    pub(super) async fn exchange(
        self,
        request: http::Request<reqwest::Body>,
    ) -> Result<http::Response<Body>, HttpError> {
        let (parts, body) = request.into_parts();
        let url = absolute(&parts.uri)?;
        // The URL judged is the very value sent: a second parser might read the text in another way.
        self.guard.check(&url)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let mut outgoing = reqwest::Request::new(parts.method, url);
        *outgoing.headers_mut() = parts.headers;
        *outgoing.body_mut() = Some(body);
        let answer = self.client.execute(outgoing).await;
        let answer = answer.map_err(|error| http_error(&host, &error))?;
        bound_headers(&host, answer.headers())?;
        let answer = http::Response::<reqwest::Body>::from(answer);
        Ok(answer.map(|body| stream(host, body)))
    }
}
