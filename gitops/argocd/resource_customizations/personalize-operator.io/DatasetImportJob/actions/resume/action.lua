-- Resumes the import. Argo CD can't remove the last annotation of a resource, so this sets it to "false".
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["personalize-operator.io/suspend"] = "false"
return obj
