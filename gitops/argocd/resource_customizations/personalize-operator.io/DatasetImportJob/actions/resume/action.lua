-- Lets the import go. Argo CD can't remove the last annotation of a resource, so it is set to false.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["personalize-operator.io/suspend"] = "false"
return obj
