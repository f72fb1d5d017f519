// What each section works with.

import type { Api, Problem } from '../shared/api.js';
import type { Speech } from './speech.js';

export interface Context {
  readonly api: Api;
  readonly speech: Speech;
  /** Says what was changed, with a way back. */
  told(sentence: string, undo?: () => void): void;
  /** Something is on its way to the service, or arrived. */
  saving(): void;
  /** Shows why a change was not saved, in the reader's language. */
  failed(problem: unknown): string;
  /** A host's own name of a topic, and where it leads. */
  topic(name: string): { label: string; href?: string } | null;
}

/** A part of the page: it loads what it shows, and reloads it when the page becomes visible again. */
export interface Section {
  readonly element: HTMLElement;
  refresh(): Promise<void>;
  /** Whether something is on its way. */
  readonly saving: boolean;
}

/** The reader's words for a refusal; the service's own, which are English, where they say which field is wrong. */
export function reason(problem: unknown, speech: Speech): string {
  const { status, fields } = problem as Partial<Problem>;
  if (status === 0) return speech.say('offline');
  if (status === 401) return `${speech.say('signedOut')}. ${speech.say('signedOutHow')}`;
  if (status === 409 || status === 429 || (status ?? 500) >= 500) return speech.say('busy');
  return [speech.say('refused'), ...(fields ?? []).map(({ message }) => message)].join(' ');
}
