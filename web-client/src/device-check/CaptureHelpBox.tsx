import { useState } from 'react';
import { useWords } from '../words/words';
import { currentClient } from './browser-kind';
import { helpFor, type CaptureFault, type DeviceKind } from './capture-fault';

interface Props {
  fault: CaptureFault;
  device: DeviceKind;
}

/** Beside the preview, never over it: what happened and what to press, for this browser. */
export function CaptureHelpBox({ fault, device }: Props) {
  const words = useWords();
  const [copied, setCopied] = useState(false);
  const help = helpFor(fault, device, currentClient(), words.permission);
  return (
    <div className="help-box" role="alert" data-testid="check-help" data-fault={fault} data-device={device}>
      <p className="help-title">{help.title}</p>
      {help.steps.length > 0 && (
        <>
          <p className="help-steps-title">{words.permission.stepsTitle}</p>
          <ol>
            {help.steps.map((step) => (
              <li key={step}>{step}</li>
            ))}
          </ol>
        </>
      )}
      {help.offerLink && (
        <button
          type="button"
          className="button"
          onClick={() =>
            void navigator.clipboard.writeText(location.href).then(
              () => setCopied(true),
              () => undefined,
            )
          }
        >
          {copied ? words.permission.linkCopied : words.permission.copyLink}
        </button>
      )}
    </div>
  );
}
