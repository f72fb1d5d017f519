// The responses of /ops/api/.

export type End = 'sent' | 'failed' | 'skipped' | 'cancelled' | 'expired';

export interface Problem {
  code: string;
  severity: 'critical' | 'warning';
  what: string;
  detail: string;
  cure: string;
  since: string | null;
  channel: string | null;
}

export interface Latency {
  p50: number;
  p99: number;
}

export interface Series {
  ended: Record<End, number[]>;
  waiting: (number | null)[];
  p50: (number | null)[];
  p99: (number | null)[];
}

export interface Channel {
  channel: string;
  available: boolean;
  late: number;
  waiting: Record<string, number>;
  waiting_more: boolean;
  oldest_at: string | null;
  last_minute: Partial<Record<End, number>>;
  latency: Latency | null;
  total: Record<End, number>;
  window_latency: Latency | null;
  series: Series;
}

export interface Reason {
  channel: string;
  state: string;
  reason: string;
  n: number;
  meaning: string;
  cure: string;
}

export interface Actor {
  name: string;
  waiting: number;
  size: number;
  in_flight: number;
  senders: number;
  rate: number | null;
  breaker: 'closed' | 'open' | 'half_open';
  reason: string | null;
  since: string | null;
  retry_at: string | null;
  crashes: number;
  advice: string | null;
}

export interface Process {
  kind: string;
  host: string;
  pid: number;
  version: string;
  started_at: string;
  reported_at: string;
  silent: boolean;
  leading: boolean;
  streams: number;
  actors: Actor[];
}

export interface MailEvents {
  sent: number;
  bounces: number;
  dead: number;
  complaints: number;
  mass_rejection_at: string | null;
}

export interface Suppression {
  id: number;
  address: string | null;
  reason: string;
  meaning: string;
  created_at: string;
}

export interface FanOut {
  event_id: number;
  event_type: string;
  title: string;
  fanned_out: number;
  total: number;
  since: string;
}

export interface Overview {
  mail_events: MailEvents;
  fan_outs: FanOut[];
  at: string;
  window: 'hour' | 'day';
  step: number;
  times: string[];
  problems: Problem[];
  streams: number;
  channels: Channel[];
  waiting: Reason[];
  ended: Reason[];
  processes: Process[];
}

export interface DeadLetter {
  delivery_id: number;
  notification_id: number | null;
  event_id: number | null;
  recipient_id: string | null;
  channel: string;
  event_type: string | null;
  title: string | null;
  reason: string | null;
  last_reason: string | null;
  attempts: number;
  address: string | null;
  created_at: string;
  failed_at: string;
  held: string | null;
}

export interface DeadReason {
  channel: string;
  reason: string;
  n: number;
  first_at: string;
  last_at: string;
  meaning: string;
  cure: string;
}

export interface Replayed {
  replayed: number;
  kept: Record<string, number>;
  next: string | null;
}

export interface NotificationLine {
  id: number;
  event_id: number;
  event_type: string;
  title: string;
  created_at: string;
  in_inbox: boolean;
  read_at: string | null;
  recipient_id: string | null;
}

export interface Device {
  platform: string;
  provider: string;
  token: string;
  registered_at: string;
  disabled_at: string | null;
  disabled_reason: string | null;
}

export interface Person {
  id: string;
  email: string | null;
  locale: string | null;
  timezone: string | null;
  created_at: string;
  unread: number;
  suppressed: string | null;
  suppressed_at: string | null;
  digest: string | null;
  quiet_hours: boolean;
  devices: Device[];
  notifications: NotificationLine[];
}

export interface EventView {
  event: {
    id: number;
    event_type: string;
    title: string;
    topic: string | null;
    caller: string;
    created_at: string;
    send_at: string | null;
    fanned_out_at: string | null;
    fanned_out: number;
    total: number | null;
    cancelled_at: string | null;
    notifications: number;
    deliveries: Record<string, Record<string, number>>;
  };
  notifications: NotificationLine[];
}

export interface Found {
  people: Person[];
  event: EventView | null;
  notification_id: number | null;
}

export interface Why {
  id: number;
  event_id: number;
  event_type: string;
  title: string;
  created_at: string;
  recipient_id: string | null;
  email: string | null;
  channels: {
    channel: string;
    decision: string;
    reason: string;
    sentence: string;
    deliveries: {
      state: string;
      reason: string | null;
      address: string | null;
      attempts: { at: string; outcome: string; reason: string | null; provider: string | null }[];
    }[];
  }[];
}
