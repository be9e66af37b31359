//! The rate-limit service: how many tokens each descriptor has used. It never refuses.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::RateLimitService;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use tonic::{Request, Response, Status};

use crate::Counts;

pub struct Limits {
    counts: Arc<Counts>,
    /// By the values of a descriptor's entries.
    used: Mutex<HashMap<String, u64>>,
}

impl Limits {
    pub fn new(counts: Arc<Counts>) -> Self {
        Self {
            counts,
            used: Mutex::default(),
        }
    }
}

#[tonic::async_trait]
impl RateLimitService for Limits {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        let mut response = RateLimitResponse {
            overall_code: Code::Ok.into(),
            ..RateLimitResponse::default()
        };
        for descriptor in request.into_inner().descriptors {
            let hits = descriptor.hits_addend.unwrap_or_default().value;
            self.counts.tokens.fetch_add(hits, Ordering::Relaxed);
            let key: String = descriptor
                .entries
                .into_iter()
                .flat_map(|entry| [entry.value, "/".to_owned()])
                .collect();
            *used.entry(key).or_default() += hits;
            response.statuses.push(DescriptorStatus {
                code: Code::Ok.into(),
                ..DescriptorStatus::default()
            });
        }
        Ok(Response::new(response))
    }
}
