"""The fields that KubeRay publishes of a RayJob, version v1 (its helm chart's CRD at feeaf72, 2026-08-19), and those of pods that
its schema repeats from Kubernetes. What a manifest names besides is dropped in silence by the cluster."""

from __future__ import annotations

FIELDS = {
    "": """
    activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus
    entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec
    runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend
    ttlSecondsAfterFinished
    """,
    "rayClusterSpec": """
    authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec
    headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions
    upgradeStrategy workerGroupSpecs
    """,
    "rayClusterSpec.autoscalerOptions": """
    args command env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext upscalingMode
    version volumeMounts
    """,
    "rayClusterSpec.headGroupSpec": """
    enableIngress headService ingressOptions labels rayStartParams resources serviceType template
    """,
    "rayClusterSpec.workerGroupSpecs": """
    groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority rayStartParams replicas
    resources scaleStrategy suspend template
    """,
    "pod": """
    activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks
    ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets
    initContainers nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates
    resourceClaims resources restartPolicy runtimeClassName schedulerName schedulingGates schedulingGroup
    securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain
    terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes
    """,
    "container": """
    args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy
    resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath
    terminationMessagePolicy tty volumeDevices volumeMounts workingDir
    """,
}
