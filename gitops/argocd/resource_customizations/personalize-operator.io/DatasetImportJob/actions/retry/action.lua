-- A new value allows one more attempt after CREATE FAILED.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["personalize-operator.io/retry-requested-at"] = os.date("!%Y-%m-%dT%XZ")
return obj
