-- Suspends the import until it is resumed.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["personalize-operator.io/suspend"] = "true"
return obj
