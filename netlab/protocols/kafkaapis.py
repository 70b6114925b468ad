"""Kafka's APIs (kafka.apache.org/protocol): numbers, names, and where the fields are that are read."""

from __future__ import annotations

from dataclasses import dataclass

# A message as the types of its fields in order: b, h, i, l integers of 1, 2, 4, 8 bytes, u a UUID, s a
# string, B bytes, [...] an array of structures, <...> one of plain fields; then the versions that have it and
# what it is read as. What follows the last field that is read is left out.
_LAYOUTS = {
    "Produce": (
        "s3+ h=acks i [s0-12=topic u13+=id [i=partition B=records]]",
        "[s0-12=topic u13+=id [i=partition h=error l l2+ l5+ [i8+ s8+]8+ s8+]]",
    ),
    "Fetch": (
        "i0-14 i i i3+ b4+ i7+ i7+ [s0-12=topic u13+=id [i=partition i9+ l i12+ l5+ i]]",
        (
            "i1+ h7+=error i7+ [s0-12=topic u13+=id [i=partition h=error l l4+ l5+ [l4+ l4+]4+ "
            "i11+ B=records]]"
        ),
    ),
    "ListOffsets": (
        "i b2+ [s=topic [i=partition i4+ l i0-0]]",
        "i2+ [s=topic [i=partition h=error <l>0-0 l1+ l1+ i4+]]",
    ),
    "Metadata": (
        "[u10+=id s=topic]",
        (
            "i3+ [i s i s1+] s2+ i1+ [h=error s=topic u10+=id b1+ [h=error i i i7+ <i> <i> <i>5+] "
            "i8+] i8-10 h13+=error"
        ),
    ),
    "OffsetCommit": (
        "s i1+ s1+ s7+ l2-4 [s0-9=topic u10+=id [i=partition l i6+ l1-1 s]]",
        "i3+ [s0-9=topic u10+=id [i=partition h=error]]",
    ),
    "OffsetFetch": (
        "s0-7 [s0-7=topic <i>0-7]0-7 [s8+ s9+ i9+ [s8-9=topic u10+=id <i>8+]8+]8+",
        (
            "i3+ [s0-7=topic [i0-7=partition l0-7 i5-7 s0-7 h0-7=error]0-7]0-7 h2-7=error [s8+ "
            "[s8-9=topic u10+=id [i8+=partition l8+ i8+ s8+ h8+=error]8+]8+ h8+=error]8+"
        ),
    ),
    "FindCoordinator": ("", "i1+ h0-3=error s1-3 i0-3 s0-3 i0-3 [s4+ i4+ s4+ i4+ h4+=error s4+]4+"),
    "JoinGroup": ("", "i2+ h=error"),
    "Heartbeat": ("", "i1+ h=error"),
    "LeaveGroup": ("", "i1+ h=error [s3+ s3+ h3+=error]3+"),
    "SyncGroup": ("", "i1+ h=error"),
    "DescribeGroups": ("", "i1+ [h=error s6+ s s s s [s s4+ s s B B] i3+]"),
    "ListGroups": ("", "i1+ h=error"),
    "SaslHandshake": ("", "h=error"),
    "ApiVersions": ("", "h=error"),
    "CreateTopics": (
        "[s=topic i h [i <i>] [s s]]",
        "i2+ [s=topic u7+=id h=error s1+ i5+ h5+ [s5+ s5+ b5+ b5+ b5+]5+]",
    ),
    "DeleteTopics": ("[s6+=topic u6+=id]6+ <s=topic>0-5", "i1+ [s=topic u6+=id h=error s5+]"),
    "DeleteRecords": ("[s=topic [i=partition l]]", "i [s=topic [i=partition l h=error]]"),
    "InitProducerId": ("", "i h=error"),
    "OffsetForLeaderEpoch": (
        "i3+ [s=topic [i=partition i2+ i]]",
        "i2+ [s=topic [h=error i=partition i1+ l]]",
    ),
    "AddPartitionsToTxn": (
        "[s l h b [s=topic <i>]]4+ s0-3 l0-3 h0-3 [s=topic <i>]0-3",
        "i h4+=error [s [s=topic [i=partition h=error]]]4+ [s=topic [i=partition h=error]]0-3",
    ),
    "AddOffsetsToTxn": ("", "i h=error"),
    "EndTxn": ("", "i h=error"),
    "TxnOffsetCommit": (
        "s s l h i3+ s3+ s3+ [s=topic [i=partition l i2+ s]]",
        "i [s=topic [i=partition h=error]]",
    ),
    "CreateAcls": ("", "i [h=error s]"),
    "DescribeConfigs": ("", "i [h=error s b s [s s b b0-0 b1+ b [s s b]1+ b3+ s3+]]"),
    "AlterConfigs": ("", "i [h=error s b s]"),
    "SaslAuthenticate": ("", "h=error"),
    "CreatePartitions": ("[s=topic i [<i>]]", "i [s=topic h=error s]"),
    "DeleteGroups": ("", "i [s h=error]"),
    "IncrementalAlterConfigs": ("", "i [h=error s b s]"),
    "DescribeCluster": ("", "i h=error"),
    "ConsumerGroupHeartbeat": ("", "i h=error"),
    "GetTelemetrySubscriptions": ("", "i h=error"),
    "PushTelemetry": ("", "i h=error"),
}

_NAMES = """
0 Produce 9 13, 1 Fetch 12 18, 2 ListOffsets 6 11, 3 Metadata 9 13, 4 LeaderAndIsr - -1,
5 StopReplica - -1, 6 UpdateMetadata - -1, 7 ControlledShutdown - -1, 8 OffsetCommit 8 10,
9 OffsetFetch 6 10, 10 FindCoordinator 3 6, 11 JoinGroup 6 9, 12 Heartbeat 4 4, 13 LeaveGroup 4 5,
14 SyncGroup 4 5, 15 DescribeGroups 5 6, 16 ListGroups 3 5, 17 SaslHandshake - 1, 18 ApiVersions 3 4,
19 CreateTopics 5 7, 20 DeleteTopics 4 6, 21 DeleteRecords 2 2, 22 InitProducerId 2 6,
23 OffsetForLeaderEpoch 4 4, 24 AddPartitionsToTxn 3 5, 25 AddOffsetsToTxn 3 4, 26 EndTxn 3 5,
27 WriteTxnMarkers 1 -1, 28 TxnOffsetCommit 3 5, 29 DescribeAcls 2 -1, 30 CreateAcls 2 3,
31 DeleteAcls 2 -1, 32 DescribeConfigs 4 4, 33 AlterConfigs 2 2, 34 AlterReplicaLogDirs 2 -1,
35 DescribeLogDirs 2 -1, 36 SaslAuthenticate 2 2, 37 CreatePartitions 2 3, 38 CreateDelegationToken 2 -1,
39 RenewDelegationToken 2 -1, 40 ExpireDelegationToken 2 -1, 41 DescribeDelegationToken 2 -1,
42 DeleteGroups 2 2, 43 ElectLeaders 2 -1, 44 IncrementalAlterConfigs 1 1,
45 AlterPartitionReassignments 0 -1, 46 ListPartitionReassignments 0 -1, 47 OffsetDelete - -1,
48 DescribeClientQuotas 1 -1, 49 AlterClientQuotas 1 -1, 50 DescribeUserScramCredentials 0 -1,
51 AlterUserScramCredentials 0 -1, 52 Vote 0 -1, 53 BeginQuorumEpoch 1 -1, 54 EndQuorumEpoch 1 -1,
55 DescribeQuorum 0 -1, 56 AlterPartition 2 -1, 57 UpdateFeatures 0 -1, 58 Envelope 0 -1,
59 FetchSnapshot 0 -1, 60 DescribeCluster 0 2, 61 DescribeProducers 0 -1, 62 BrokerRegistration 0 -1,
63 BrokerHeartbeat 0 -1, 64 UnregisterBroker 0 -1, 65 DescribeTransactions 0 -1, 66 ListTransactions 0 -1,
67 AllocateProducerIds 0 -1, 68 ConsumerGroupHeartbeat 0 1, 69 ConsumerGroupDescribe 0 -1,
70 ControllerRegistration 0 -1, 71 GetTelemetrySubscriptions 0 0, 72 PushTelemetry 0 1,
73 AssignReplicasToDirs 0 -1, 74 ListConfigResources 0 -1, 75 DescribeTopicPartitions 0 -1,
76 ShareGroupHeartbeat 1 -1, 77 ShareGroupDescribe 1 -1, 78 ShareFetch 1 -1, 79 ShareAcknowledge 1 -1,
80 AddRaftVoter 0 -1, 81 RemoveRaftVoter 0 -1, 82 UpdateRaftVoter 0 -1, 83 InitializeShareGroupState 0 -1,
84 ReadShareGroupState 0 -1, 85 WriteShareGroupState 0 -1, 86 DeleteShareGroupState 0 -1,
87 ReadShareGroupStateSummary 0 -1, 88 StreamsGroupHeartbeat 0 -1, 89 StreamsGroupDescribe 0 -1,
90 DescribeShareGroupOffsets 0 -1, 91 AlterShareGroupOffsets 0 -1, 92 DeleteShareGroupOffsets 0 -1
"""  # number, name, first version with compact and tagged fields, newest version of the layout

_ERRORS = """
-1 UNKNOWN_SERVER_ERROR, 1 OFFSET_OUT_OF_RANGE, 2 CORRUPT_MESSAGE, 3 UNKNOWN_TOPIC_OR_PARTITION,
4 INVALID_FETCH_SIZE, 5 LEADER_NOT_AVAILABLE, 6 NOT_LEADER_OR_FOLLOWER, 7 REQUEST_TIMED_OUT,
8 BROKER_NOT_AVAILABLE, 9 REPLICA_NOT_AVAILABLE, 10 MESSAGE_TOO_LARGE, 11 STALE_CONTROLLER_EPOCH,
12 OFFSET_METADATA_TOO_LARGE, 13 NETWORK_EXCEPTION, 14 COORDINATOR_LOAD_IN_PROGRESS,
15 COORDINATOR_NOT_AVAILABLE, 16 NOT_COORDINATOR, 17 INVALID_TOPIC_EXCEPTION, 18 RECORD_LIST_TOO_LARGE,
19 NOT_ENOUGH_REPLICAS, 20 NOT_ENOUGH_REPLICAS_AFTER_APPEND, 21 INVALID_REQUIRED_ACKS,
22 ILLEGAL_GENERATION, 23 INCONSISTENT_GROUP_PROTOCOL, 24 INVALID_GROUP_ID, 25 UNKNOWN_MEMBER_ID,
26 INVALID_SESSION_TIMEOUT, 27 REBALANCE_IN_PROGRESS, 28 INVALID_COMMIT_OFFSET_SIZE,
29 TOPIC_AUTHORIZATION_FAILED, 30 GROUP_AUTHORIZATION_FAILED, 31 CLUSTER_AUTHORIZATION_FAILED,
32 INVALID_TIMESTAMP, 33 UNSUPPORTED_SASL_MECHANISM, 34 ILLEGAL_SASL_STATE, 35 UNSUPPORTED_VERSION,
36 TOPIC_ALREADY_EXISTS, 37 INVALID_PARTITIONS, 38 INVALID_REPLICATION_FACTOR,
39 INVALID_REPLICA_ASSIGNMENT, 40 INVALID_CONFIG, 41 NOT_CONTROLLER, 42 INVALID_REQUEST,
43 UNSUPPORTED_FOR_MESSAGE_FORMAT, 44 POLICY_VIOLATION, 45 OUT_OF_ORDER_SEQUENCE_NUMBER,
46 DUPLICATE_SEQUENCE_NUMBER, 47 INVALID_PRODUCER_EPOCH, 48 INVALID_TXN_STATE,
49 INVALID_PRODUCER_ID_MAPPING, 50 INVALID_TRANSACTION_TIMEOUT, 51 CONCURRENT_TRANSACTIONS,
52 TRANSACTION_COORDINATOR_FENCED, 53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED, 54 SECURITY_DISABLED,
55 OPERATION_NOT_ATTEMPTED, 56 KAFKA_STORAGE_ERROR, 57 LOG_DIR_NOT_FOUND, 58 SASL_AUTHENTICATION_FAILED,
59 UNKNOWN_PRODUCER_ID, 60 REASSIGNMENT_IN_PROGRESS, 61 DELEGATION_TOKEN_AUTH_DISABLED,
62 DELEGATION_TOKEN_NOT_FOUND, 63 DELEGATION_TOKEN_OWNER_MISMATCH,
64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, 65 DELEGATION_TOKEN_AUTHORIZATION_FAILED,
66 DELEGATION_TOKEN_EXPIRED, 67 INVALID_PRINCIPAL_TYPE, 68 NON_EMPTY_GROUP, 69 GROUP_ID_NOT_FOUND,
70 FETCH_SESSION_ID_NOT_FOUND, 71 INVALID_FETCH_SESSION_EPOCH, 72 LISTENER_NOT_FOUND,
73 TOPIC_DELETION_DISABLED, 74 FENCED_LEADER_EPOCH, 75 UNKNOWN_LEADER_EPOCH,
76 UNSUPPORTED_COMPRESSION_TYPE, 77 STALE_BROKER_EPOCH, 78 OFFSET_NOT_AVAILABLE, 79 MEMBER_ID_REQUIRED,
80 PREFERRED_LEADER_NOT_AVAILABLE, 81 GROUP_MAX_SIZE_REACHED, 82 FENCED_INSTANCE_ID,
83 ELIGIBLE_LEADERS_NOT_AVAILABLE, 84 ELECTION_NOT_NEEDED, 85 NO_REASSIGNMENT_IN_PROGRESS,
86 GROUP_SUBSCRIBED_TO_TOPIC, 87 INVALID_RECORD, 88 UNSTABLE_OFFSET_COMMIT, 89 THROTTLING_QUOTA_EXCEEDED,
90 PRODUCER_FENCED, 91 RESOURCE_NOT_FOUND, 92 DUPLICATE_RESOURCE, 93 UNACCEPTABLE_CREDENTIAL,
94 INCONSISTENT_VOTER_SET, 95 INVALID_UPDATE_VERSION, 96 FEATURE_UPDATE_FAILED,
97 PRINCIPAL_DESERIALIZATION_FAILURE, 98 SNAPSHOT_NOT_FOUND, 99 POSITION_OUT_OF_RANGE,
100 UNKNOWN_TOPIC_ID, 101 DUPLICATE_BROKER_REGISTRATION, 102 BROKER_ID_NOT_REGISTERED,
103 INCONSISTENT_TOPIC_ID, 104 INCONSISTENT_CLUSTER_ID, 105 TRANSACTIONAL_ID_NOT_FOUND,
106 FETCH_SESSION_TOPIC_ID_ERROR, 107 INELIGIBLE_REPLICA, 108 NEW_LEADER_ELECTED,
109 OFFSET_MOVED_TO_TIERED_STORAGE, 110 FENCED_MEMBER_EPOCH, 111 UNRELEASED_INSTANCE_ID,
112 UNSUPPORTED_ASSIGNOR, 113 STALE_MEMBER_EPOCH, 114 MISMATCHED_ENDPOINT_TYPE,
115 UNSUPPORTED_ENDPOINT_TYPE, 116 UNKNOWN_CONTROLLER_ID, 117 UNKNOWN_SUBSCRIPTION_ID,
118 TELEMETRY_TOO_LARGE, 119 INVALID_REGISTRATION, 120 TRANSACTION_ABORTABLE, 121 INVALID_RECORD_STATE,
122 SHARE_SESSION_NOT_FOUND, 123 INVALID_SHARE_SESSION_EPOCH, 124 FENCED_STATE_EPOCH,
125 INVALID_VOTER_KEY, 126 DUPLICATE_VOTER, 127 VOTER_NOT_FOUND, 128 INVALID_REGULAR_EXPRESSION,
129 REBOOTSTRAP_REQUIRED, 130 STREAMS_INVALID_TOPOLOGY, 131 STREAMS_INVALID_TOPOLOGY_EPOCH,
132 STREAMS_TOPOLOGY_FENCED, 133 SHARE_SESSION_LIMIT_REACHED
"""


@dataclass(frozen=True, slots=True)
class Api:
    """One API: a kind of request and its response."""

    name: str
    flexible: int | None  # the first version with compact and tagged fields
    newest: int  # the last version whose layout is known; -1: none is
    request: str = ""
    response: str = ""

    def is_flexible(self, version: int) -> bool:
        """Return whether messages of *version* have compact and tagged fields."""
        return self.flexible is not None and version >= self.flexible


def _api(name: str, flexible: str, newest: str) -> Api:
    return Api(name, None if flexible == "-" else int(flexible), int(newest), *_LAYOUTS.get(name, ()))


APIS = {int(number): _api(*rest) for number, *rest in map(str.split, _NAMES.split(","))}
ERRORS = {int(code): name for code, name in map(str.split, _ERRORS.split(","))}
