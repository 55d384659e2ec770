-- Any new value makes the operator reconcile now.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["personalize-operator.io/reconcile-requested-at"] = os.date("!%Y-%m-%dT%XZ")
return obj
