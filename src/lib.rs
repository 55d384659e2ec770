//! Amazon Personalize dataset imports as Kubernetes resources.
