-- Which actions make sense now. All of them set annotations that Git does not track: a change of the
-- spec would be taken back by self-heal.
local status = obj.status or {}
local annotations = obj.metadata.annotations or {}

local reason = ""
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" then
    reason = condition.reason
  end
end

local ended = status.completionTime ~= nil
local by_spec = obj.spec.suspend == true
local by_annotation = annotations["personalize-operator.io/suspend"] == "true"
-- A submission can't be taken back; between two attempts there is none.
local submitted = (status.datasetImportJobArn ~= nil or status.submission ~= nil) and reason ~= "Retrying"
-- A failed job keeps its name, so a fixed name allows no other attempt.
local can_retry = reason == "ImportFailed" and obj.spec.jobName == nil

local actions = {}
actions["reconcile"] = {
  displayName = "Reconcile now",
  iconClass = "fa fa-fw fa-sync-alt",
  disabled = ended
}
actions["retry"] = {
  displayName = "Retry: submit one more job",
  iconClass = "fa fa-fw fa-redo",
  disabled = not can_retry
}
actions["suspend"] = {
  displayName = "Suspend",
  iconClass = "fa fa-fw fa-pause-circle",
  disabled = ended or submitted or by_spec or by_annotation
}
actions["resume"] = {
  displayName = "Resume",
  iconClass = "fa fa-fw fa-play-circle",
  -- What Git holds back only Git can resume.
  disabled = by_spec or not by_annotation
}
return actions
