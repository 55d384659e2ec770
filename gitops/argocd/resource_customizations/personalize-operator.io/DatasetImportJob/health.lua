-- Derives the health of a DatasetImportJob from its conditions. It is Healthy only after the import succeeded, so that
-- later sync waves and PostSync hooks find the data in the dataset.
local health = { status = "Progressing", message = "Waiting for the operator to observe this resource" }
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is(name, value)
  return conditions[name] ~= nil and conditions[name].status == value
end

local ready = conditions.Ready
if ready == nil then
  return health
end
health.message = ready.reason .. ": " .. (ready.message or "")
if is("Ready", "True") then
  health.status = "Healthy"
elseif is("Stalled", "True") then
  health.status = "Degraded"
elseif ready.reason == "Suspended" then
  health.status = "Suspended"
end
return health
