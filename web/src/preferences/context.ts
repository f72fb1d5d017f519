// The context that each section uses.

import type { Api, Problem } from '../shared/api.js';
import type { Speech } from './speech.js';

export interface Context {
  readonly api: Api;
  readonly speech: Speech;
  /** Announces a change, with an undo. */
  announce(sentence: string, undo?: () => void): void;
  /** A change is being saved, or was saved. */
  saving(): void;
  /** Shows why a change was not saved, in the reader's language. */
  failed(problem: unknown): string;
  /** The host's own name for a topic, and its link. */
  topic(name: string): { label: string; href?: string } | null;
}

/** A part of the page: it loads what it shows, and reloads it when the page becomes visible again. */
export interface Section {
  readonly element: HTMLElement;
  refresh(): Promise<void>;
  /** Whether a change is being saved. */
  readonly saving: boolean;
}

/** The message for a refusal in the reader's language; the service's own, in English, if it names a wrong field. */
export function reason(problem: unknown, speech: Speech): string {
  const { status, fields } = problem as Partial<Problem>;
  if (status === 0) return speech.say('offline');
  if (status === 401) return `${speech.say('signedOut')}. ${speech.say('signedOutHow')}`;
  if (status === 409 || status === 429 || (status ?? 500) >= 500) return speech.say('busy');
  return [speech.say('refused'), ...(fields ?? []).map(({ message }) => message)].join(' ');
}
