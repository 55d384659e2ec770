-- Decides which actions are available. Actions set annotations that Git does not track, because self-heal would revert
-- a change of the spec.
local status = obj.status or {}
local annotations = obj.metadata.annotations or {}

local reason = ""
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" then
    reason = condition.reason
  end
end

local finished = status.completionTime ~= nil
local by_spec = obj.spec.suspend == true
local by_annotation = annotations["personalize-operator.io/suspend"] == "true"
-- A submitted job can't be suspended. Between two attempts there is no job.
local submitted = (status.datasetImportJobArn ~= nil or status.submission ~= nil) and reason ~= "Retrying"
-- A failed job keeps its name in AWS, so a fixed job name allows no second attempt.
local can_retry = reason == "ImportFailed" and obj.spec.jobName == nil

local actions = {}
actions["reconcile"] = {
  displayName = "Reconcile now",
  iconClass = "fa fa-fw fa-sync-alt",
  disabled = finished
}
actions["retry"] = {
  displayName = "Retry: submit one more job",
  iconClass = "fa fa-fw fa-redo",
  disabled = not can_retry
}
actions["suspend"] = {
  displayName = "Suspend",
  iconClass = "fa fa-fw fa-pause-circle",
  disabled = finished or submitted or by_spec or by_annotation
}
actions["resume"] = {
  displayName = "Resume",
  iconClass = "fa fa-fw fa-play-circle",
  -- If Git suspends the import, only Git can resume it.
  disabled = by_spec or not by_annotation
}
return actions
