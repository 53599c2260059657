-- Health of an Execution for Argo CD: Healthy only when the command succeeded, Degraded as soon as it finally failed.
local function condition(kind)
  if obj.status ~= nil and obj.status.conditions ~= nil then
    for _, found in ipairs(obj.status.conditions) do
      if found.type == kind then
        return found
      end
    end
  end
  return nil
end

local ready = condition("Ready")
if obj.metadata.deletionTimestamp ~= nil then
  return { status = "Progressing", message = "is being deleted" }
end
if ready == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "waits for the operator" }
end
local stalled, suspended = condition("Stalled"), condition("Suspended")
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.reason .. ": " .. stalled.message }
end
if suspended ~= nil and suspended.status == "True" then
  return { status = "Suspended", message = suspended.message }
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
return { status = "Progressing", message = ready.reason .. ": " .. ready.message }
